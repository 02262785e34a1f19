//! What would be sampled, and what is not seen.
//!
//! Input: `/proc/self/net/{tcp,tcp6,udp,udp6}` as text, the rules' local sides, UDP counters.
//! Output: one [`Check`] each. Pure but for reading the files.
//! Limits: listeners of this network namespace only; at most [`LISTED`] of them are printed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::machine::Machine;
use super::report::Check;
use crate::node_stats::NetCounters;

/// Listeners printed at most.
const LISTED: usize = 40;
/// State of a listening TCP socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";
/// States of connections whose server can still send: ESTABLISHED and CLOSE_WAIT.
const OPEN: [&str; 2] = ["01", "08"];
/// The port of HTTPS and of QUIC.
const HTTPS: u16 = 443;

/// The local side of one stream's rule.
#[derive(Clone, Debug)]
pub struct LocalRule {
    /// Whose rule.
    pub stream: String,
    /// Addresses; `None` for any.
    pub prefix: Option<IpNet>,
    /// Ports.
    pub ports: RangeInclusive<u16>,
}

impl LocalRule {
    /// Whether a connection to `listener` can match. A listener on any address takes connections to every one.
    fn meets(&self, listener: Listener) -> bool {
        let address = listener.address;
        self.ports.contains(&listener.port)
            && match self.prefix {
                None => true,
                Some(IpNet::V4(_)) if address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => true,
                // An IPv6 listener on any address mostly takes IPv4 too; the file does not tell.
                Some(_) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
                Some(prefix) => prefix.contains(&address),
            }
    }
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Port.
    pub port: u16,
    /// Address; the unspecified one for any.
    pub address: IpAddr,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address.is_unspecified(), self.address) {
            (true, IpAddr::V4(_)) => write!(f, "*:{}", self.port),
            (true, IpAddr::V6(_)) => write!(f, "[::]:{}", self.port),
            (false, IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            (false, IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// Local sides of the sockets of a `/proc/net/{tcp,udp}{,6}` table, with the state column.
fn sockets(table: &str) -> impl Iterator<Item = (Listener, &str)> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((
            Listener {
                port,
                address: parse_address(address)?.to_canonical(),
            },
            state,
        ))
    })
}

/// The kernel prints addresses as 32-bit words of network bytes read in its own byte order (little endian here).
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0_u8; 16];
    let words = hex.len() / 8;
    if !hex.is_ascii() || !hex.len().is_multiple_of(8) || !matches!(words, 1 | 4) {
        return None;
    }
    for word in 0..words {
        let value = u32::from_str_radix(&hex[word * 8..word * 8 + 8], 16).ok()?;
        bytes[word * 4..word * 4 + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let [a, b, c, d, ..] = bytes;
    Some(if words == 1 {
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from(bytes)
    })
}

/// Listening TCP sockets of this network namespace, in order of their ports.
pub fn listeners(machine: &Machine) -> Vec<Listener> {
    let tables = ["proc/self/net/tcp", "proc/self/net/tcp6"]
        .map(|file| machine.text(file).unwrap_or_default());
    let all = tables.iter().flat_map(|table| sockets(table));
    all.filter(|(_, state)| *state == LISTEN)
        .map(|(listener, _)| listener)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Connections of this network namespace that can still send and whose local end a rule names.
pub fn connections(machine: &Machine, rules: &[LocalRule]) -> u64 {
    let tables = ["proc/self/net/tcp", "proc/self/net/tcp6"]
        .map(|file| machine.text(file).unwrap_or_default());
    let all = tables.iter().flat_map(|table| sockets(table));
    let open = all.filter(|(local, state)| {
        OPEN.contains(state) && rules.iter().any(|rule| rule.meets(*local))
    });
    open.count() as u64
}

/// Which listeners feed which streams, and which streams nobody feeds.
pub fn would_be_sampled(listeners: &[Listener], rules: &[LocalRule]) -> Vec<Check> {
    let mut lines: Vec<String> = Vec::new();
    for listener in listeners {
        let streams: BTreeSet<&str> = rules
            .iter()
            .filter(|rule| rule.meets(*listener))
            .map(|rule| rule.stream.as_str())
            .collect();
        let streams = streams.into_iter().collect::<Vec<_>>().join(", ");
        lines.push(format!(
            "{listener} -> {}",
            if streams.is_empty() {
                "no stream"
            } else {
                &streams
            }
        ));
    }
    let more = lines.len().saturating_sub(LISTED);
    lines.truncate(LISTED);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if lines.is_empty() {
        lines.push("no TCP listener in this network namespace".to_owned());
    }
    let found = lines.join("\n");
    let mut checks = vec![if rules.is_empty() {
        Check::warn(
            "listeners",
            found,
            "no stream is configured: nothing would be sampled; add a [[stream]] with its local addresses",
        )
    } else {
        Check::ok("listeners", found)
    }];
    let fed = |stream: &str| {
        rules
            .iter()
            .filter(|rule| rule.stream == stream)
            .any(|rule| listeners.iter().any(|one| rule.meets(*one)))
    };
    let streams: BTreeSet<&str> = rules.iter().map(|rule| rule.stream.as_str()).collect();
    let silent: Vec<&str> = streams.into_iter().filter(|stream| !fed(stream)).collect();
    if !silent.is_empty() {
        let found = format!("nobody listens for: {}", silent.join(", "));
        checks.push(Check::warn("streams", found, "start the server, or correct the stream's local addresses (another network namespace is not looked into)"));
    }
    checks
}

/// How much of the node's traffic the sampler cannot see, because it is not TCP.
pub fn quic(machine: &Machine, counters: Option<NetCounters>) -> Check {
    let tables = ["proc/self/net/udp", "proc/self/net/udp6"]
        .map(|file| machine.text(file).unwrap_or_default());
    let sockets = tables
        .iter()
        .flat_map(|table| sockets(table))
        .filter(|(socket, _)| socket.port == HTTPS)
        .count();
    let traffic = counters.map_or("UDP counters cannot be read".to_owned(), |counters| {
        format!(
            "{} UDP datagrams and {} TCP segments sent since start",
            counters.udp_out_datagrams, counters.tcp_out_segs
        )
    });
    if sockets == 0 {
        return Check::ok("UDP :443 (QUIC)", format!("no socket; {traffic}"));
    }
    let found = format!("{sockets} sockets, none of which is seen: only TCP is sampled; {traffic}");
    Check::warn(
        "UDP :443 (QUIC)",
        found,
        "read every number as TCP only; the heartbeat carries the UDP count for the share",
    )
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::super::report::Level;
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
                       1: 00000000:01BB 00000000:0000 0A 0:0\n   2: 0100007F:1F90 0100007F:D431 01 0:0\n   3: junk\n   4: é:1 0 0A\n";
    const TCP6: &str = "  sl  local_address\n   0: 00000000000000000000000000000000:01BB 0:0 0A x\n   \
                        1: B80D0120000000000000000007000000:01BB 0:0 0A x\n   2: 0000000000000000FFFF00000100007F:1F90 0:0 0A x\n";

    fn machine(tcp: &str, tcp6: &str, udp: &str) -> (tempfile::TempDir, Machine) {
        let root = tempfile::tempdir().expect("directory");
        let net = root.path().join("proc/self/net");
        std::fs::create_dir_all(&net).expect("directories");
        for (file, text) in [("tcp", tcp), ("tcp6", tcp6), ("udp", udp)] {
            std::fs::write(net.join(file), text).expect("write");
        }
        let machine = Machine::under(root.path());
        (root, machine)
    }

    fn rule(stream: &str, prefix: Option<&str>, ports: RangeInclusive<u16>) -> LocalRule {
        LocalRule {
            stream: stream.to_owned(),
            prefix: prefix.map(|text| text.parse().expect("prefix")),
            ports,
        }
    }

    #[test]
    fn counts_the_connections_of_rules() {
        let (_place, machine) = machine(TCP, "", "");
        assert_eq!(connections(&machine, &[rule("a", None, 8080..=8080)]), 1);
        assert_eq!(connections(&machine, &[rule("a", None, 443..=443)]), 0);
    }

    #[test]
    fn lists_listeners_of_both_families() {
        let (_root, machine) = machine(TCP, TCP6, "");
        let found: Vec<String> = listeners(&machine)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            ["*:443", "[::]:443", "[2001:db8::7]:443", "127.0.0.1:8080"]
        );
    }

    #[test]
    fn finds_a_real_listener() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(address) else {
                continue;
            };
            let own = socket.local_addr().expect("address");
            let expected = Listener {
                port: own.port(),
                address: own.ip(),
            };
            assert!(listeners(&Machine::this()).contains(&expected), "{own}");
        }
    }

    #[test]
    fn says_which_streams_nobody_feeds() {
        let (_root, machine) = machine(TCP, "", "");
        let rules = [
            rule("sport", Some("203.0.113.7/32"), 443..=443),
            rule("news", Some("127.0.0.0/8"), 8000..=8099),
            rule("any", None, 443..=443),
            rule("six", Some("2001:db8::/32"), 443..=443),
            rule("lost", Some("203.0.113.7/32"), 8080..=8080),
        ];
        let checks = would_be_sampled(&listeners(&machine), &rules);
        assert_eq!(
            checks[0].found,
            "*:443 -> any, sport\n127.0.0.1:8080 -> news"
        );
        assert_eq!(checks[1].found, "nobody listens for: lost, six");
        let none = would_be_sampled(&[], &[]);
        assert_eq!((none.len(), none[0].level), (1, Level::Warn));
    }

    #[test]
    fn warns_of_quic() {
        let header = "  sl  local_address\n";
        let (_root, machine) = machine(
            "",
            "",
            &format!("{header}  7: 00000000:01BB 0:0 07 x\n  8: 00000000:0035 0:0 07 x\n"),
        );
        let check = quic(
            &machine,
            Some(NetCounters {
                udp_out_datagrams: 5,
                ..NetCounters::default()
            }),
        );
        assert_eq!(check.level, Level::Warn);
        assert!(
            check.found.starts_with("1 sockets") && check.found.contains("5 UDP"),
            "{check:?}"
        );
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        assert_ne!(socket.local_addr().expect("address").port(), HTTPS);
    }
}
