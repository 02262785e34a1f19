//! A lossy network and real servers on one machine, for tests, benches and the demo.
//!
//! [`network::Network`] is two network namespaces with a link whose loss, blackouts and (with
//! [`delay`]) one-way delay are set while traffic runs. [`traffic`] moves bytes over it and counts
//! them on both ends, [`counters`] reads what the kernel of each side counted meanwhile.
//! [`kafka`] and [`cassandra`] start real servers, [`alertmanager`] real Alertmanagers and a receiver of what they send.
//! [`guest`] is what a virtual machine says to its host, [`agent`] what it is asked to do.
//! [`unit`](mod@unit) holds a shipped systemd unit against what is promised of it.
//!
//! Limits: Linux, root (or CAP_NET_ADMIN and CAP_SYS_ADMIN), the Debian packages iproute2 and
//! iptables; the delay link also needs `/dev/net/tun`. Everything made here is removed by `Drop`;
//! what a killed process left behind is removed by the next [`netns::Namespace::new`].

pub mod agent;
pub mod alertmanager;
pub mod cassandra;
pub mod clock;
pub mod command;
pub mod counters;
pub mod delay;
pub mod environment;
pub mod filter;
pub mod guest;
pub mod kafka;
pub mod netns;
pub mod network;
mod offload;
pub mod server;
pub mod traffic;
pub mod unit;
