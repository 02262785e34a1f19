//! `schema`: the tables of a Cassandra store, printed for `cqlsh` or applied.
//!
//! In: the configuration, for keyspace and data centre, and the number of copies. Out: statements on `out`, or what was done; an
//! exit code. Applying may be repeated, and deletes nothing.

use std::io::{self, Write};

use service::exit;

use crate::cli::SchemaArgs;
use crate::config::Config;
use crate::store::cassandra::{Settings, apply_schema, schema_statements};

/// Runs `schema`; the result is the exit code.
///
/// # Errors
/// If `out` or `err` cannot be written.
pub fn run(args: &SchemaArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let read = Config::load(&args.config);
    let settings = match read.and_then(|config| Ok(Settings::of(&config)?)) {
        Ok(settings) => settings,
        Err(errors) => {
            errors.report(&args.config, err)?;
            return Ok(exit::CONFIG);
        }
    };
    if !args.apply {
        for statement in schema_statements(&settings.placement(args.copies)) {
            writeln!(out, "{statement};\n")?;
        }
        return Ok(exit::OK);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(apply_schema(&settings, args.copies)) {
        Ok(()) => {
            writeln!(out, "keyspace {} has all tables", settings.keyspace)?;
            Ok(exit::OK)
        }
        Err(error) => {
            let points = settings.contact_points.join(", ");
            writeln!(err, "flowvitals-aggregator: cassandra {points}: {error}")?;
            Ok(exit::UNSUPPORTED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(text: &str, copies: u8) -> (u8, String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("aggregator.toml");
        std::fs::write(&config, text).expect("written");
        let args = SchemaArgs {
            config,
            apply: false,
            copies,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&args, &mut out, &mut err).expect("written");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (code, text(out), text(err))
    }

    #[test]
    fn prints_the_tables_of_the_configured_keyspace() {
        let (code, out, _) = run_on("[store]\nkeyspace = 'mine'\nlocal_datacenter = 'west'\n", 3);
        assert_eq!(code, exit::OK);
        assert!(out.contains("'west': 3"), "{out}");
        assert!(out.contains("IF NOT EXISTS mine.stream_second"), "{out}");
    }

    #[test]
    fn a_login_without_its_password_is_said_with_its_place() {
        let (code, _, err) = run_on("[store]\nusername = 'me'\n", 1);
        assert_eq!(code, exit::CONFIG);
        assert!(err.contains("aggregator.toml:2:"), "{err}");
        assert!(err.contains("store.username"), "{err}");
    }
}
