//! Both ends' accounts side by side. Bytes are payload; no estimate, only sums.

use super::client::{ClientEnd, ClientFlow};
use super::plan::Plan;
use super::server::{ServerEnd, ServerFlow};

/// Sums over one plan's connections, client's side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The plan's name.
    pub name: String,
    /// Connections begun.
    pub connections: usize,
    /// Of these, ended with FIN from both sides after everything was read.
    pub closed_fin: usize,
    /// Of these, reset by either side.
    pub closed_reset: usize,
    /// Of these, never came to be, ended early, or were answered wrongly.
    pub failed: usize,
    /// Of these, open at the end.
    pub open: usize,
    /// Response bytes read.
    pub bytes_read: u64,
    /// Whole responses.
    pub responses: u64,
}

/// What a run of traffic did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Per plan, in the plans' order.
    pub groups: Vec<Group>,
    /// Each connection as the client saw it.
    pub clients: Vec<ClientFlow>,
    /// Each connection as the server saw it.
    pub servers: Vec<ServerFlow>,
}

impl Report {
    /// Sums both ends' accounts up.
    #[must_use]
    pub fn new(plans: &[Plan], clients: Vec<ClientFlow>, servers: Vec<ServerFlow>) -> Self {
        let mut groups: Vec<Group> = plans
            .iter()
            .map(|plan| Group {
                name: plan.name.clone(),
                ..Group::default()
            })
            .collect();
        for flow in &clients {
            if let Some(group) = groups.get_mut(flow.plan) {
                group.add(flow);
            }
        }
        Self {
            groups,
            clients,
            servers,
        }
    }

    /// Connections that the server accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.servers.len()
    }

    /// Response bytes that the server's kernel took, over all connections.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.servers.iter().map(|flow| flow.bytes_written).sum()
    }

    /// Response bytes written on connections that both sides closed with FIN.
    #[must_use]
    pub fn bytes_written_fin(&self) -> u64 {
        let fin = |end| matches!(end, ServerEnd::ClientFin | ServerEnd::ServerFin);
        self.servers
            .iter()
            .filter(|flow| fin(flow.end))
            .map(|flow| flow.bytes_written)
            .sum()
    }

    /// Response bytes that the players read, over all connections.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.groups.iter().map(|group| group.bytes_read).sum()
    }

    /// Connections that ended otherwise than planned.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.groups.iter().map(|group| group.failed).sum()
    }

    /// The sums of the plan of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

impl Group {
    fn add(&mut self, flow: &ClientFlow) {
        self.connections += 1;
        self.bytes_read += flow.bytes_read;
        self.responses += u64::from(flow.responses);
        match flow.end {
            ClientEnd::Fin => self.closed_fin += 1,
            ClientEnd::Reset | ClientEnd::ResetSent => self.closed_reset += 1,
            ClientEnd::Open => self.open += 1,
            ClientEnd::EarlyFin | ClientEnd::BadResponse | ClientEnd::ConnectFailed(_) => {
                self.failed += 1;
            }
        }
    }
}
