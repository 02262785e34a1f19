//! What every daemon of ours needs, whatever it does.
//!
//! | module | is |
//! |---|---|
//! | [`brokers`] | what Kafka brokers say of themselves |
//! | [`config`] | TOML read option by option: every error with file, line and column, all in one go |
//! | [`delivery`] | what an error of a Kafka producer asks for |
//! | [`exit`] | exit statuses |
//! | [`fd_store`] | descriptors that the service manager keeps over a restart |
//! | [`latency`] | distribution of the daemon's own times |
//! | [`metrics`] | Prometheus exposition, text and protobuf |
//! | [`notify`] | word to the service manager |
//! | [`port`] | whether an address is free to listen on |
//! | [`producer`] | Kafka producers whose events wake who takes them |
//! | [`topics`] | names of the Kafka topics |

pub mod brokers;
pub mod config;
pub mod delivery;
pub mod exit;
pub mod fd_store;
pub mod latency;
pub mod metrics;
pub mod notify;
pub mod port;
pub mod producer;
pub mod topics;
