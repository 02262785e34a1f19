//! What the kernel of one namespace counted: `/proc/net/snmp`, `/proc/net/netstat` and its open
//! TCP sockets. Counters are since the namespace was made; units are in the names.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::clock;
use crate::netns::{Namespace, NetnsError};

/// Counters that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A file of `/proc` could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel does not know this counter.
    #[error("this kernel has no counter {0}")]
    Missing(&'static str),
}

macro_rules! tcp_counters {
    ($($(#[$doc:meta])* $field:ident = $key:literal,)*) => {
        /// TCP counters of one namespace, by the kernel's own names in snake case.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct TcpCounters {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl TcpCounters {
            fn pick(all: &HashMap<String, u64>) -> Result<Self, CountersError> {
                Ok(Self {
                    $($field: *all.get($key).ok_or(CountersError::Missing($key))?,)*
                })
            }

            /// How far each counter went since `before` was read.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self {
                    $($field: self.$field.wrapping_sub(before.$field),)*
                }
            }
        }
    };
}

tcp_counters! {
    /// Segments sent again, SYN and SYN-ACK among them.
    retrans_segs = "Tcp.RetransSegs",
    /// SYN and SYN-ACK sent again.
    syn_retrans = "TcpExt.TCPSynRetrans",
    /// Segments sent, retransmits not among them.
    out_segs = "Tcp.OutSegs",
    /// Segments received, bad ones among them.
    in_segs = "Tcp.InSegs",
    /// Connections that came to be by an incoming SYN.
    passive_opens = "Tcp.PassiveOpens",
    /// Connections that came to be by an outgoing SYN.
    active_opens = "Tcp.ActiveOpens",
    /// Connections that ended from ESTABLISHED or CLOSE_WAIT straight to CLOSED.
    estab_resets = "Tcp.EstabResets",
    /// RST segments sent.
    out_rsts = "Tcp.OutRsts",
    /// Connections in ESTABLISHED or CLOSE_WAIT now: a gauge.
    current_established = "Tcp.CurrEstab",
    /// DSACKs for segments received in order.
    dsack_recv = "TcpExt.TCPDSACKRecv",
    /// DSACKs for segments received out of order.
    dsack_ofo_recv = "TcpExt.TCPDSACKOfoRecv",
    /// Segments sent again in fast recovery.
    fast_retrans = "TcpExt.TCPFastRetrans",
    /// Segments sent again in slow start after a time-out.
    slow_start_retrans = "TcpExt.TCPSlowStartRetrans",
    /// Timer expiries, of SYN-ACK timers too.
    timeouts = "TcpExt.TCPTimeouts",
    /// Tail loss probes sent.
    loss_probes = "TcpExt.TCPLossProbes",
    /// Retransmits that could not leave.
    retrans_fail = "TcpExt.TCPRetransFail",
    /// SYN cookies sent.
    syncookies_sent = "TcpExt.SyncookiesSent",
    /// SYN cookies that came back and were good.
    syncookies_recv = "TcpExt.SyncookiesRecv",
    /// Fast open connections accepted, with data in the SYN.
    fast_open_passive = "TcpExt.TCPFastOpenPassive",
    /// Connections dropped for a full accept queue.
    listen_drops = "TcpExt.ListenDrops",
    /// Segments sent with data for the first time, in the sender's view.
    orig_data_sent = "TcpExt.TCPOrigDataSent",
}

impl TcpCounters {
    /// Reads the counters of `namespace`.
    ///
    /// # Errors
    /// When `/proc` cannot be read there, or the kernel lacks one of them.
    pub fn read(namespace: &Namespace) -> Result<Self, CountersError> {
        Self::pick(&read_all(namespace)?)
    }

    /// `retrans_segs` without those of handshakes: what the flows' own counters add up to.
    #[must_use]
    pub fn data_retrans_segs(&self) -> u64 {
        self.retrans_segs.wrapping_sub(self.syn_retrans)
    }
}

/// Every counter of `snmp` and `netstat`, keyed `Group.Name`.
///
/// # Errors
/// When `/proc` cannot be read in the namespace.
pub fn read_all(namespace: &Namespace) -> Result<HashMap<String, u64>, CountersError> {
    let mut all = HashMap::new();
    for path in [
        "/proc/thread-self/net/snmp",
        "/proc/thread-self/net/netstat",
    ] {
        parse(&read_file(namespace, path)?, &mut all);
    }
    Ok(all)
}

/// How many TCP sockets of `namespace` on these local ports (all if empty) may still change the
/// sender's counters: everything but LISTEN, TIME_WAIT and CLOSED.
///
/// # Errors
/// When `/proc` cannot be read in the namespace.
pub fn open_sockets(namespace: &Namespace, ports: &[u16]) -> Result<usize, CountersError> {
    let mut open = 0;
    for path in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        open += count_open(&read_file(namespace, path)?, ports);
    }
    Ok(open)
}

/// Waits until no such socket is left; whether that came true in time.
///
/// # Errors
/// When `/proc` cannot be read in the namespace.
pub fn wait_closed(
    namespace: &Namespace,
    ports: &[u16],
    timeout: Duration,
) -> Result<bool, CountersError> {
    let mut failure = None;
    let closed = clock::wait_until(timeout, || match open_sockets(namespace, ports) {
        Ok(open) => open == 0,
        Err(error) => {
            failure = Some(error);
            true
        }
    });
    failure.map_or(Ok(closed), Err)
}

fn read_file(namespace: &Namespace, path: &'static str) -> Result<String, CountersError> {
    namespace
        .run_in(|| fs::read_to_string(path))?
        .map_err(|source| CountersError::Read { path, source })
}

/// Lines come in pairs: names, then values, both behind the same `Group:`.
fn parse(text: &str, into: &mut HashMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut names = names.split_whitespace();
        let group = names.next().unwrap_or_default().trim_end_matches(':');
        let values = values.split_whitespace().skip(1);
        for (name, value) in names.zip(values) {
            // Some are signed (MaxConn is -1): those are no counters.
            if let Ok(value) = value.parse() {
                into.insert(format!("{group}.{name}"), value);
            }
        }
    }
}

/// Field 1 is `address:port`, field 3 the state, all in hexadecimal.
fn count_open(table: &str, ports: &[u16]) -> usize {
    const TIME_WAIT: u8 = 6;
    const CLOSED: u8 = 7;
    const LISTEN: u8 = 10;
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let port = fields
                .next()
                .and_then(|local| local.rsplit_once(':'))
                .and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            let state = fields.nth(1).and_then(|s| u8::from_str_radix(s, 16).ok());
            let ours = port.is_some_and(|port| ports.is_empty() || ports.contains(&port));
            ours && state.is_some_and(|s| ![TIME_WAIT, CLOSED, LISTEN].contains(&s))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_lines_become_counters() {
        let mut all = HashMap::new();
        parse(
            "Tcp: MaxConn RetransSegs\nTcp: -1 42\nTcpExt: TCPSynRetrans\nTcpExt: 7\n",
            &mut all,
        );
        assert_eq!(all.get("Tcp.RetransSegs"), Some(&42));
        assert_eq!(all.get("TcpExt.TCPSynRetrans"), Some(&7));
        assert_eq!(all.get("Tcp.MaxConn"), None);
    }

    #[test]
    fn listeners_and_time_wait_are_not_open() {
        let table = "  sl  local_address rem_address   st\n\
             0: 00000000:1F90 00000000:0000 0A 0:0\n\
             1: 01004D0A:1F90 02004D0A:C001 01 0:0\n\
             2: 01004D0A:1F90 02004D0A:C002 06 0:0\n\
             3: 01004D0A:1F91 02004D0A:C003 09 0:0\n";
        assert_eq!(count_open(table, &[]), 2);
        assert_eq!(count_open(table, &[0x1f90]), 1);
        assert_eq!(count_open(table, &[1]), 0);
    }
}
