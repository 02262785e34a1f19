//! Configuration files: `source → reader → typed values`, whatever is wrong with its place.

pub mod error;
pub mod file;
pub mod kafka;
pub mod labels;
pub mod names;
pub mod network;
pub mod reader;
pub mod source;

pub use error::{ConfigError, ConfigErrors, ConfigWarning, Findings, Place, Wrong};
pub use reader::{Parsed, Section};
pub use source::Source;
