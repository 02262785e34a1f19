//! What the driver says, in words that a person can act on.

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, NextPageError, NextRowError, PagerExecutionError, PrepareError,
    RequestAttemptError, RequestError,
};

/// Of a statement that failed.
pub(super) fn of(error: &ExecutionError) -> String {
    match error {
        ExecutionError::LastAttemptError(attempt) => of_attempt(attempt),
        ExecutionError::ConnectionPoolError(pool) => of_pool(pool),
        ExecutionError::RequestTimeout(timeout) => late(timeout.as_millis()),
        ExecutionError::EmptyPlan => no_node(),
        ExecutionError::PrepareError(error) => of_prepare(error),
        other => other.to_string(),
    }
}

/// Of a statement that could not be prepared.
pub(super) fn of_prepare(error: &PrepareError) -> String {
    match error {
        PrepareError::ConnectionPoolError(pool) => of_pool(pool),
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(first_attempt),
        other => other.to_string(),
    }
}

/// Of rows that could not be asked for.
pub(super) fn of_pager(error: &PagerExecutionError) -> String {
    match error {
        PagerExecutionError::PrepareError(error) => of_prepare(error),
        PagerExecutionError::NextPageError(error) => of_page(error),
        other => other.to_string(),
    }
}

/// Of a row that did not come.
pub(super) fn of_row(error: &NextRowError) -> String {
    match error {
        NextRowError::NextPageError(error) => of_page(error),
        other => other.to_string(),
    }
}

fn of_page(error: &NextPageError) -> String {
    let NextPageError::RequestFailure(error) = error else {
        return error.to_string();
    };
    match error {
        RequestError::LastAttemptError(attempt) => of_attempt(attempt),
        RequestError::ConnectionPoolError(pool) => of_pool(pool),
        RequestError::RequestTimeout(timeout) => late(timeout.as_millis()),
        RequestError::EmptyPlan => no_node(),
        other => other.to_string(),
    }
}

/// Of a session that could not be made.
pub(super) fn of_session(error: &NewSessionError) -> String {
    match error {
        NewSessionError::FailedToResolveAnyHostname(names) => format!(
            "no address is known for {}: correct store.contact_points",
            names.join(", ")
        ),
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(pool)) => of_pool(pool),
        other => other.to_string(),
    }
}

fn of_attempt(error: &RequestAttemptError) -> String {
    match error {
        RequestAttemptError::DbError(error, said) => of_answer(error, said),
        other => other.to_string(),
    }
}

fn of_answer(error: &DbError, said: &str) -> String {
    match error {
        DbError::Unavailable {
            required, alive, ..
        } => {
            format!(
                "{required} copies are needed, {alive} can be reached: start the nodes that are down"
            )
        }
        DbError::WriteTimeout {
            required, received, ..
        }
        | DbError::ReadTimeout {
            required, received, ..
        } => {
            format!("{required} copies are needed, {received} answered in time")
        }
        DbError::Unauthorized => {
            format!("{said}: grant store.username MODIFY and SELECT on the keyspace")
        }
        DbError::AuthenticationError => refused(said),
        DbError::Overloaded | DbError::IsBootstrapping => error.to_string(),
        _ => format!("{error}: {said}"),
    }
}

fn of_pool(error: &ConnectionPoolError) -> String {
    match error {
        ConnectionPoolError::Broken {
            last_connection_error,
            ..
        } => of_connection(last_connection_error),
        other => other.to_string(),
    }
}

fn of_connection(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectTimeout => "no connection in time: is the node up?".to_owned(),
        // The driver hands on what OpenSSL says as one of the socket's errors.
        ConnectionError::IoError(error) if error.to_string().contains("SSL routines") => {
            format!("the node's certificate is refused ({error}): correct store.tls_ca")
        }
        ConnectionError::IoError(error) => {
            format!("no connection ({error}): start the node, or correct store.contact_points")
        }
        ConnectionError::ConnectionSetupRequestError(setup) => match setup.get_error() {
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, said) => {
                refused(said)
            }
            ConnectionSetupRequestErrorKind::MissingAuthentication => {
                "it asks who we are: set store.username and store.password_file".to_owned()
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn refused(said: &str) -> String {
    format!("login refused ({said}): correct store.username or what is in store.password_file")
}

fn late(timeout_ms: u128) -> String {
    format!("no answer within {timeout_ms} ms")
}

fn no_node() -> String {
    "no node of store.local_datacenter can be reached".to_owned()
}
