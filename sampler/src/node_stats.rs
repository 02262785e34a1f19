//! The node's own counters, beside which the sample can be held at any time.
//!
//! Input: `/proc/thread-self/net/{snmp,netstat,snmp6}` (the network namespace of the calling thread), `getrusage`,
//! `/proc/self/status`. Output: [`NetCounters`] and [`OwnUse`].
//! Limits: reads four small files; a missing or strange one is an error, never a zero.
//! Units: segments, datagrams, µs of CPU since the process started, bytes.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::resource::{UsageWho, getrusage};

/// Why the node's counters could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NodeStatsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file has no such counter.
    #[error("{path} has no {counter}")]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Which counter.
        counter: &'static str,
    },
    /// `getrusage` failed.
    #[error("cannot read this process's CPU time: {0}")]
    Usage(nix::Error),
}

/// Counters of one network namespace since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// `TcpRetransSegs`: every retransmitted segment, SYN ones included.
    pub tcp_retrans_segs: u64,
    /// `TcpExtTCPSynRetrans`: SYN and SYN-ACK retransmits among them.
    pub tcp_syn_retrans: u64,
    /// `TcpOutSegs`: segments sent, retransmits excluded.
    pub tcp_out_segs: u64,
    /// `TcpPassiveOpens` and `TcpActiveOpens`: connections accepted, and tried.
    pub tcp_opens: u64,
    /// UDP datagrams sent, IPv4 and IPv6: what a QUIC edge would show up in.
    pub udp_out_datagrams: u64,
}

/// What this process used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnUse {
    /// User and system time of all threads, µs.
    pub cpu_us_total: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
}

/// Reads the counters of the calling thread's network namespace.
pub fn net_counters() -> Result<NetCounters, NodeStatsError> {
    net_counters_under(Path::new("/proc/thread-self/net"))
}

/// Reads the counters from a `net` directory of `/proc`, for example another process's.
pub fn net_counters_under(net: &Path) -> Result<NetCounters, NodeStatsError> {
    let snmp = File::read(net.join("snmp"))?;
    let netstat = File::read(net.join("netstat"))?;
    let udp4 = snmp.table_value("Udp", "OutDatagrams")?;
    // Absent where IPv6 is built out or switched off at boot: then there are no IPv6 datagrams.
    let udp6 = match File::read(net.join("snmp6")) {
        Ok(snmp6) => snmp6.line_value("Udp6OutDatagrams")?,
        Err(NodeStatsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => 0,
        Err(other) => return Err(other),
    };
    Ok(NetCounters {
        tcp_retrans_segs: snmp.table_value("Tcp", "RetransSegs")?,
        tcp_syn_retrans: netstat.table_value("TcpExt", "TCPSynRetrans")?,
        tcp_out_segs: snmp.table_value("Tcp", "OutSegs")?,
        tcp_opens: snmp
            .table_value("Tcp", "PassiveOpens")?
            .saturating_add(snmp.table_value("Tcp", "ActiveOpens")?),
        udp_out_datagrams: udp4.saturating_add(udp6),
    })
}

/// Reads what this process used so far.
pub fn own_use() -> Result<OwnUse, NodeStatsError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(NodeStatsError::Usage)?;
    let micros = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds
            .saturating_mul(1_000_000)
            .saturating_add(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    let status = File::read("/proc/self/status".into())?;
    Ok(OwnUse {
        cpu_us_total: micros(usage.user_time()).saturating_add(micros(usage.system_time())),
        rss_bytes: status.line_value("VmRSS:")?.saturating_mul(1024),
    })
}

/// The text of one file and its name for the error.
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn read(path: PathBuf) -> Result<Self, NodeStatsError> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(NodeStatsError::Read { path, source }),
        }
    }

    fn missing(&self, counter: &'static str) -> NodeStatsError {
        NodeStatsError::Missing {
            path: self.path.clone(),
            counter,
        }
    }

    /// A counter out of a pair of lines `Table: names…` and `Table: values…`.
    fn table_value(&self, table: &str, counter: &'static str) -> Result<u64, NodeStatsError> {
        table_value(&self.text, table, counter).ok_or_else(|| self.missing(counter))
    }

    /// A counter out of a line `name value`.
    fn line_value(&self, counter: &'static str) -> Result<u64, NodeStatsError> {
        line_value(&self.text, counter).ok_or_else(|| self.missing(counter))
    }
}

/// Columns move between kernels, so the value is found by its name in the line above.
fn table_value(text: &str, table: &str, counter: &str) -> Option<u64> {
    let mut rows = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| *name == table);
    let (_, names) = rows.next()?;
    let (_, values) = rows.next()?;
    let column = names.split_whitespace().position(|name| name == counter)?;
    values.split_whitespace().nth(column)?.parse().ok()
}

fn line_value(text: &str, counter: &str) -> Option<u64> {
    let mut words = text
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(counter)).then_some(words))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const SNMP: &str = "Tcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens OutSegs RetransSegs\nTcp: 1 -1 5 60 900 17\nUdp: InDatagrams OutDatagrams\nUdp: 5 8\n\
                        UdpLite: InDatagrams OutDatagrams\nUdpLite: 1 2\n";

    #[test]
    fn finds_counters_by_name() {
        for (table, counter, expected) in [
            ("Tcp", "RetransSegs", Some(17)),
            ("Tcp", "OutSegs", Some(900)),
            ("Tcp", "MaxConn", None),
            ("Udp", "OutDatagrams", Some(8)),
            ("Udp", "Nothing", None),
            ("Icmp", "InMsgs", None),
        ] {
            assert_eq!(
                table_value(SNMP, table, counter),
                expected,
                "{table} {counter}"
            );
        }
        assert_eq!(
            line_value(
                "Udp6InDatagrams 3\nUdp6OutDatagrams  \t44\n",
                "Udp6OutDatagrams"
            ),
            Some(44)
        );
        assert_eq!(line_value("VmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(line_value("", "VmRSS:"), None);
    }

    #[test]
    fn a_file_without_the_counter_is_an_error() {
        let net = tempfile::tempdir().expect("directory");
        std::fs::write(net.path().join("snmp"), SNMP).expect("write");
        std::fs::write(
            net.path().join("netstat"),
            "TcpExt: SyncookiesSent\nTcpExt: 1\n",
        )
        .expect("write");
        let error = net_counters_under(net.path()).expect_err("no TCPSynRetrans");
        assert!(
            error.to_string().ends_with("netstat has no TCPSynRetrans"),
            "{error}"
        );
        std::fs::write(
            net.path().join("netstat"),
            "TcpExt: TCPSynRetrans\nTcpExt: 3\n",
        )
        .expect("write");
        let counters = net_counters_under(net.path()).expect("counters without IPv6");
        let expected = NetCounters {
            tcp_retrans_segs: 17,
            tcp_syn_retrans: 3,
            tcp_out_segs: 900,
            tcp_opens: 65,
            udp_out_datagrams: 8,
        };
        assert_eq!(counters, expected);
    }

    #[test]
    fn counts_datagrams_of_both_families_on_this_kernel() {
        let before = net_counters().expect("counters");
        let mut sent = 0;
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(address) else {
                continue;
            };
            let own = socket.local_addr().expect("address");
            sent += u64::from(socket.send_to(b"x", own).is_ok());
        }
        assert!(sent >= 1);
        let after = net_counters().expect("counters");
        assert!(after.udp_out_datagrams >= before.udp_out_datagrams + sent);
        let own = own_use().expect("own use");
        assert!(own.rss_bytes > 100_000 && own.cpu_us_total > 0, "{own:?}");
    }
}
