//! When a node answers, and when all nodes of a ring know each other and one schema.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::host_filter::AllowListHostFilter;
use uuid::Uuid;

use super::{PASSWORD, USER};
use crate::clock;

const TIMEOUT: Duration = Duration::from_secs(5);
/// CQL version 4, stream 1, OPTIONS, no body.
const OPTIONS: [u8; 9] = [4, 0, 0, 1, 5, 0, 0, 0, 0];
/// Opcode of the answer.
const SUPPORTED: u8 = 6;

/// Whether a node answers CQL: its port may accept before that.
pub(super) fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(&OPTIONS)?;
        let mut header = [0; 5];
        stream.read_exact(&mut header)?;
        Ok(header[4])
    };
    ask().is_ok_and(|opcode| opcode == SUPPORTED)
}

/// Waits until every node sees all the others with one schema, and lets us in if it asks who we
/// are; whether that came in time.
pub(super) fn wait_whole(addresses: &[SocketAddr], login: bool, timeout: Duration) -> bool {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return false;
    };
    let mut left: Vec<SocketAddr> = addresses.to_vec();
    clock::wait_until(timeout, || {
        left.retain(|node| !runtime.block_on(sees_all(*node, addresses.len(), login)));
        left.is_empty()
    })
}

/// Whether one node, asked on its own, sees `nodes` nodes with one schema.
async fn sees_all(node: SocketAddr, nodes: usize, login: bool) -> bool {
    let Some(session) = connect(node, login).await else {
        return false;
    };
    let mut schemas = HashSet::new();
    let mut seen = 0;
    for table in ["local", "peers_v2"] {
        let query = format!("SELECT schema_version FROM system.{table}");
        let Ok(answer) = session.query_unpaged(query, ()).await else {
            return false;
        };
        let Ok(rows) = answer.into_rows_result() else {
            return false;
        };
        let Ok(versions) = rows.rows::<(Option<Uuid>,)>() else {
            return false;
        };
        for version in versions.flatten() {
            seen += 1;
            schemas.insert(version.0);
        }
    }
    seen == nodes && schemas.len() == 1 && !schemas.contains(&None)
}

async fn connect(node: SocketAddr, login: bool) -> Option<Session> {
    let only = AllowListHostFilter::new([node]).ok()?;
    let mut builder = SessionBuilder::new()
        .known_node_addr(node)
        .host_filter(Arc::new(only))
        .connection_timeout(TIMEOUT)
        .fetch_schema_metadata(false);
    if login {
        builder = builder.user(USER, PASSWORD);
    }
    builder.build().await.ok()
}
