//! A session with its statements.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::Consistency;

use super::statements::Statements;
use super::{Settings, schema, words};
use crate::store::StoreError;

/// A statement that takes longer has failed; the nodes' own limits are shorter.
const STATEMENT: Duration = Duration::from_secs(10);
const CONNECTION: Duration = Duration::from_secs(5);

/// A session whose tables were found to be ours.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) statements: Statements,
    pub(super) keyspace: String,
    pub(super) site: String,
    pub(super) in_flight: usize,
    /// The last day noted of each stream, days since 1970: it need not be noted again.
    pub(super) noted: Mutex<HashMap<String, u64>>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").finish_non_exhaustive()
    }
}

impl Connected {
    /// Connects, and looks at the tables.
    ///
    /// # Errors
    /// Why that cannot be, in words.
    pub(super) async fn new(settings: &Settings, site: &str) -> Result<Self, StoreError> {
        let session = session(settings).await?;
        schema::check(&session, &settings.keyspace).await?;
        let statements = Statements::prepare(&session, &settings.keyspace)
            .await
            .map_err(|error| schema::unprepared(&settings.keyspace, &error))?;
        Ok(Self {
            session,
            statements,
            keyspace: settings.keyspace.clone(),
            site: site.to_owned(),
            in_flight: settings.in_flight.max(1),
            noted: Mutex::default(),
        })
    }
}

/// A session with the nodes of the local data centre.
pub(super) async fn session(settings: &Settings) -> Result<Session, StoreError> {
    let balancing = DefaultPolicy::builder()
        .prefer_datacenter(settings.local_datacenter.clone())
        .permit_dc_failover(false)
        .token_aware(true);
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .request_timeout(Some(STATEMENT))
        .load_balancing_policy(balancing.build());
    let mut builder = SessionBuilder::new()
        .known_nodes(&settings.contact_points)
        .default_execution_profile_handle(profile.build().into_handle())
        .connection_timeout(CONNECTION)
        .tls_context(settings.tls.clone());
    if let Some((user, password)) = &settings.login {
        builder = builder.user(user, password);
    }
    let session = builder
        .build()
        .await
        .map_err(|error| StoreError::Unavailable(words::of_session(&error)))?;
    check_datacenter(&session, &settings.local_datacenter)?;
    Ok(session)
}

/// Statements go to no other data centre: one that is not there would hold them up for ever.
fn check_datacenter(session: &Session, wanted: &str) -> Result<(), StoreError> {
    let state = session.get_cluster_state();
    let mut known: Vec<_> = state
        .get_nodes_info()
        .iter()
        .filter_map(|node| node.datacenter.as_deref())
        .collect();
    known.sort_unstable();
    known.dedup();
    match known.contains(&wanted) {
        true => Ok(()),
        false => Err(StoreError::Unavailable(format!(
            "no node is in data centre {wanted}, there are {}: correct store.local_datacenter",
            known.join(", ")
        ))),
    }
}
