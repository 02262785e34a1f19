//! The tables: made by `deploy/cassandra/schema.cql`, which this program carries, and held against its version.
//!
//! Input: the keyspace and the number of copies. Output: statements, of which each may be repeated; or what is wrong with the
//! tables that are there, in words that say what to do.

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};

use super::words;
use crate::store::StoreError;

/// The file, with the names of its defaults.
const TEXT: &str = include_str!("../../../../deploy/cassandra/schema.cql");
/// Its keyspace and data centre.
const DEFAULTS: (&str, &str) = ("flowvitals", "dc1");
/// Version that this program writes and reads; the end of the file says the same.
const VERSION: i32 = 1;

/// Where tables are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Keyspace.
    pub keyspace: String,
    /// Data centre that holds the copies.
    pub datacenter: String,
    /// Copies: 1 on a single node, 3 in a ring.
    pub copies: u8,
}

/// The statements, in order, without comments; each ends without its semicolon.
#[must_use]
pub fn statements(placement: &Placement) -> Vec<String> {
    let code = TEXT.lines().map(|line| match line.split_once("--") {
        Some((code, _)) => code.trim_end(),
        None => line,
    });
    let code: Vec<_> = code.filter(|line| !line.trim().is_empty()).collect();
    let whole = code
        .join("\n")
        .replace(
            &format!(" {}.", DEFAULTS.0),
            &format!(" {}.", placement.keyspace),
        )
        .replace(
            &format!(" {} WITH", DEFAULTS.0),
            &format!(" {} WITH", placement.keyspace),
        )
        .replace(
            &format!("'{}': 1", DEFAULTS.1),
            &format!("'{}': {}", placement.datacenter, placement.copies),
        );
    whole
        .split(';')
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}

/// Makes what is missing; what is there stays as it is.
///
/// # Errors
/// What Cassandra says, with the statement's first line.
pub(super) async fn apply(session: &Session, placement: &Placement) -> Result<(), StoreError> {
    for statement in statements(placement) {
        let first = statement.lines().next().unwrap_or_default().to_owned();
        // One after another: each waits until all nodes know the one before.
        let done = session.query_unpaged(statement, ()).await;
        done.map_err(|error| StoreError::Unavailable(format!("{first}: {}", words::of(&error))))?;
    }
    Ok(())
}

/// Whether the tables are those of this version.
///
/// # Errors
/// What is missing or old, and how it is made.
pub(super) async fn check(session: &Session, keyspace: &str) -> Result<(), StoreError> {
    let query = format!("SELECT version FROM {keyspace}.schema_version WHERE component = 'store'");
    let answer = match session.query_unpaged(query, ()).await {
        Ok(answer) => answer,
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Invalid,
            said,
        ))) => return Err(missing(keyspace, &said)),
        Err(error) => return Err(StoreError::Unavailable(words::of(&error))),
    };
    let rows = answer.into_rows_result();
    let version = rows
        .ok()
        .and_then(|rows| rows.maybe_first_row::<(Option<i32>,)>().ok()?);
    match version.and_then(|(version,)| version) {
        Some(version) if version >= VERSION => Ok(()),
        Some(version) => Err(StoreError::Unavailable(format!(
            "keyspace {keyspace} has tables of version {version}, this program needs {VERSION}: {REMEDY}"
        ))),
        None => Err(missing(keyspace, "no version is noted in schema_version")),
    }
}

const REMEDY: &str = "apply deploy/cassandra/schema.cql, or run `flowvitals-aggregator schema --config FILE --apply`";

/// Why a statement could not be prepared: a table or column that is not there is said as such.
pub(super) fn unprepared(keyspace: &str, error: &PrepareError) -> StoreError {
    match error {
        PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(DbError::Invalid, said),
        } => missing(keyspace, said),
        other => StoreError::Unavailable(words::of_prepare(other)),
    }
}

fn missing(keyspace: &str, said: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "keyspace {keyspace} lacks tables ({said}): {REMEDY}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(keyspace: &str, datacenter: &str, copies: u8) -> Vec<String> {
        statements(&Placement {
            keyspace: keyspace.to_owned(),
            datacenter: datacenter.to_owned(),
            copies,
        })
    }

    #[test]
    fn keyspace_and_copies_are_put_in_everywhere() {
        let theirs = placed("other", "west", 3);
        assert!(theirs[0].contains("EXISTS other WITH"), "{}", theirs[0]);
        assert!(theirs[0].contains("'west': 3"), "{}", theirs[0]);
        for statement in &theirs {
            assert!(!statement.contains("flowvitals"), "{statement}");
            assert!(!statement.contains("--"), "{statement}");
        }
        let own = placed("flowvitals", "dc1", 1);
        assert_eq!(own.len(), theirs.len());
        let same =
            |(own, theirs): (&String, &String)| own.replace("flowvitals", "other") == *theirs;
        assert!(own.iter().zip(&theirs).skip(1).all(same));
    }

    #[test]
    fn every_statement_may_be_repeated_and_the_last_is_the_version() {
        let own = placed("flowvitals", "dc1", 1);
        let (last, rest) = own.split_last().expect("statements");
        assert!(last.ends_with(&format!("('store', {VERSION})")), "{last}");
        for statement in rest {
            assert!(
                statement.contains("IF NOT EXISTS flowvitals"),
                "{statement}"
            );
        }
    }
}
