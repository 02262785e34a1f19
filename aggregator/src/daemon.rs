//! src daemon.
