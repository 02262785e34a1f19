//! Sampling rates set live over a Unix socket, with automatic return: `rate set STREAM RATE --for 15m`.
//!
//! ```text
//! client ── one JSON line ──► server ──► window task: Overrides ──► streams (a new rate epoch)
//!        ◄── one JSON line ──
//! ```
//!
//! Who may write the socket may ask: root and the service's group (mode 0660). Nothing is remembered over a restart: the configured
//! rates are those of a new life. Limits: see [`server`] and [`overrides`].

pub mod client;
pub mod overrides;
pub mod server;
pub mod wire;
