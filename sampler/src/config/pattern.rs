//! Patterns over addresses and ports: what a stream's `local` and `remote` are made of.
//!
//! Addresses are canonical: a v4-mapped IPv6 address or prefix is the IPv4 one. `None` as a
//! network takes every address of both families.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use service::config::error::Wrong;

/// What `local` may look like, for messages.
pub const LOCAL_FORMS: &str = "203.0.113.7:443, [2001:db8::7]:443, *:8080, \
     203.0.113.0/24:8000-8099, [2001:db8::/32]:443; ports 1 to 65535";
/// What `remote` may look like, for messages.
pub const REMOTE_FORMS: &str = "198.51.100.0/24, 2001:db8::/32 or a single address";

/// Ports from `first` to `last`, both included; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is in it.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether some port is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// One more than the last port.
    pub fn end(&self) -> u32 {
        u32::from(self.last) + 1
    }

    /// How many ports, at least 1.
    pub fn count(&self) -> u32 {
        self.end() - u32::from(self.first)
    }
}

impl FromStr for PortRange {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |message: String| Wrong::new(message, LOCAL_FORMS);
        let port = |digits: &str| match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(wrong(format!("`{digits}` is not a port"))),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(wrong(format!("port range {text} runs backwards")));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// One entry of a stream's `local`: our addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalPattern {
    /// Our addresses; `None` is every one.
    pub net: Option<IpNet>,
    /// Our ports.
    pub ports: PortRange,
}

impl LocalPattern {
    /// Whether a canonical local end is in it.
    pub fn contains(&self, local: SocketAddr) -> bool {
        self.ports.contains(local.port()) && net_contains(self.net, canonical(local.ip()))
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.ports.covers(&other.ports) && net_covers(self.net, other.net)
    }

    /// Whether some local end is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ports.overlaps(&other.ports)
            && (net_covers(self.net, other.net) || net_covers(other.net, self.net))
    }

    /// The address, if the pattern holds exactly one.
    pub fn single_address(&self) -> Option<IpAddr> {
        self.net
            .filter(|net| net.prefix_len() == net.max_prefix_len())
            .map(|net| net.addr())
    }
}

impl FromStr for LocalPattern {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |message: String| Wrong::new(message, LOCAL_FORMS);
        let (address, ports) = if let Some(rest) = text.strip_prefix('[') {
            rest.split_once("]:")
                .ok_or_else(|| wrong(format!("`{text}` has no `]:port`")))?
        } else {
            let (address, ports) = text
                .rsplit_once(':')
                .ok_or_else(|| wrong(format!("`{text}` has no port")))?;
            if address.contains(':') {
                return Err(wrong(format!("`{text}`: an IPv6 address needs brackets")));
            }
            (address, ports)
        };
        let bracketed = text.starts_with('[');
        if address == "*" && !bracketed {
            return Ok(Self {
                net: None,
                ports: ports.parse()?,
            });
        }
        let net = parse_net(address, LOCAL_FORMS)?;
        if bracketed && !address.contains(':') {
            return Err(wrong(format!(
                "`{text}`: brackets are for IPv6 addresses only"
            )));
        }
        if net.prefix_len() == net.max_prefix_len() && net.addr().is_unspecified() {
            return Err(wrong(format!(
                "`{address}` is never the address of a connection; every address is `*:{ports}`"
            )));
        }
        Ok(Self {
            net: Some(net),
            ports: ports.parse()?,
        })
    }
}

impl fmt::Display for LocalPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.net {
            None => write!(f, "*:{}", self.ports),
            Some(net @ IpNet::V4(_)) => write!(f, "{}:{}", Net(net), self.ports),
            Some(net @ IpNet::V6(_)) => write!(f, "[{}]:{}", Net(net), self.ports),
        }
    }
}

/// A network as an operator writes it: a single address has no prefix length.
pub struct Net(pub IpNet);

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => write!(f, "{}", self.0.addr()),
            false => write!(f, "{}", self.0),
        }
    }
}

/// One entry of a stream's `remote`: a client prefix. `::/0` is returned as it is; only
/// together with `0.0.0.0/0` does it have a meaning, see [`client_prefixes`].
pub fn parse_client(text: &str) -> Result<IpNet, Wrong> {
    match text.parse::<Ipv6Net>() {
        Ok(all) if all.prefix_len() == 0 && all.addr().is_unspecified() => Ok(IpNet::V6(all)),
        _ => parse_net(text, REMOTE_FORMS),
    }
}

/// The client prefixes of a stream, without those that others contain; empty is every client.
///
/// The kernel compares 16 bytes under a mask, IPv4 as `::ffff:a.b.c.d`, so `::/0` alone would
/// take IPv4 clients too: it is refused, unless they are asked for as well.
pub fn client_prefixes(mut nets: Vec<IpNet>) -> Result<Vec<IpNet>, Wrong> {
    let all_v6 = nets
        .iter()
        .any(|net| matches!(net, IpNet::V6(_)) && net.prefix_len() == 0);
    let all_v4 = nets
        .iter()
        .any(|net| matches!(net, IpNet::V4(_)) && net.prefix_len() == 0);
    match (all_v4, all_v6) {
        (true, true) => Ok(Vec::new()),
        (false, true) => Err(covers_v4("::/0")),
        _ => {
            let all = nets.clone();
            let mut at = 0;
            nets.retain(|net| {
                let here = at;
                at += 1;
                !all.iter().enumerate().any(|(other_at, other)| {
                    other_at != here && other.contains(net) && (other != net || other_at < here)
                })
            });
            Ok(nets)
        }
    }
}

fn covers_v4(text: &str) -> Wrong {
    Wrong::new(
        format!("`{text}` also holds the IPv4 addresses (as ::ffff:0:0/96)"),
        "2000::/3 for every global IPv6 address; for both families `*` as local address, no remote",
    )
}

fn parse_net(text: &str, forms: &str) -> Result<IpNet, Wrong> {
    let not_an_address = || Wrong::new(format!("`{text}` is not an address or prefix"), forms);
    let net = if text.contains('/') {
        text.parse::<IpNet>().map_err(|_| not_an_address())?
    } else {
        IpNet::from(text.parse::<IpAddr>().map_err(|_| not_an_address())?)
    };
    if net.trunc() != net {
        let message = format!("`{text}` has bits set behind its prefix");
        return Err(Wrong::new(
            message,
            format!("{} or a single address", net.trunc()),
        ));
    }
    match net {
        IpNet::V6(v6) => canonical_v6(v6, text),
        IpNet::V4(_) => Ok(net),
    }
}

fn canonical_v6(net: Ipv6Net, text: &str) -> Result<IpNet, Wrong> {
    const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    match (
        net.addr().to_ipv4_mapped(),
        net.prefix_len().checked_sub(96),
    ) {
        (Some(v4), Some(prefix_len)) => Ipv4Net::new(v4, prefix_len)
            .map(IpNet::V4)
            .map_err(|_| Wrong::new(format!("`{text}` is not a prefix"), REMOTE_FORMS)),
        _ if net.contains(&MAPPED) => Err(covers_v4(text)),
        _ => Ok(IpNet::V6(net)),
    }
}

/// An address in its canonical form: v4-mapped IPv6 is IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether an address is in a network; `None` holds all.
pub fn net_contains(net: Option<IpNet>, address: IpAddr) -> bool {
    net.is_none_or(|net| net.contains(&address))
}

/// Whether `outer` holds all of `inner`; `None` holds all.
pub fn net_covers(outer: Option<IpNet>, inner: Option<IpNet>) -> bool {
    match (outer, inner) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => outer.contains(&inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> LocalPattern {
        text.parse()
            .unwrap_or_else(|wrong| panic!("{text}: {wrong}"))
    }

    #[test]
    fn good_patterns_print_in_canonical_form() {
        let check = |text: &str, expected: &str| assert_eq!(local(text).to_string(), expected);
        check("203.0.113.7:443", "203.0.113.7:443");
        check("203.0.113.7/32:443", "203.0.113.7:443");
        check("[2001:DB8::7]:443", "[2001:db8::7]:443");
        check("*:8080", "*:8080");
        check("203.0.113.0/24:8000-8099", "203.0.113.0/24:8000-8099");
        check("[2001:db8::/32]:443", "[2001:db8::/32]:443");
        check("[::ffff:203.0.113.7]:443", "203.0.113.7:443");
        check("[::ffff:203.0.113.0/120]:1-65535", "203.0.113.0/24:1-65535");
        check("[::ffff:0:0/96]:443", "0.0.0.0/0:443");
        check("*:5-5", "*:5");
    }

    #[test]
    fn bad_patterns_say_what_is_wrong() {
        let check = |text: &str, expected: &str| {
            let message = text.parse::<LocalPattern>().expect_err(text).message;
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("203.0.113.7", "has no port");
        check("203.0.113.700:443", "is not an address");
        check("example.org:443", "is not an address");
        check("*:9-3", "runs backwards");
        check("*:0", "`0` is not a port");
        check("*:70000", "`70000` is not a port");
        check("*:+80", "`+80` is not a port");
        check("*:", "`` is not a port");
        check("*:1-2-3", "`2-3` is not a port");
        check("2001:db8::7:443", "needs brackets");
        check("[2001:db8::7]", "has no `]:port`");
        check("[203.0.113.7]:443", "brackets are for IPv6");
        check("[*]:443", "is not an address");
        check("203.0.113.7/24:443", "bits set behind");
        check("203.0.113.0/33:443", "is not an address or prefix");
        check("0.0.0.0:443", "`*:443`");
        check("[::]:443", "`*:443`");
        check("[::/0]:443", "also holds the IPv4");
        check("[::/64]:443", "also holds the IPv4");
    }

    #[test]
    fn client_prefixes_are_reduced() {
        let check = |given: &[&str], expected: &[&str]| {
            let nets = given
                .iter()
                .map(|text| parse_client(text).unwrap())
                .collect();
            let shown: Vec<_> = client_prefixes(nets)
                .unwrap()
                .iter()
                .map(|net| Net(*net).to_string())
                .collect();
            assert_eq!(shown, expected, "{given:?}");
        };
        check(&[], &[]);
        check(&["0.0.0.0/0"], &["0.0.0.0/0"]);
        check(&["0.0.0.0/0", "::/0"], &[]);
        check(
            &["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8"],
            &["10.0.0.0/8"],
        );
        check(&["::ffff:10.0.0.1", "10.0.0.1"], &["10.0.0.1"]);
        check(
            &["2001:db8::/32", "10.0.0.0/8"],
            &["2001:db8::/32", "10.0.0.0/8"],
        );
        assert!(client_prefixes(vec![parse_client("::/0").unwrap()]).is_err());
        assert!(parse_client("*").is_err());
        assert!(parse_client("::/40").is_err());
    }

    #[test]
    fn covering_and_overlapping() {
        let check = |a: &str, b: &str, covers: bool, overlaps: bool| {
            assert_eq!(local(a).covers(&local(b)), covers, "{a} covers {b}");
            assert_eq!(local(a).overlaps(&local(b)), overlaps, "{a} overlaps {b}");
            assert_eq!(local(b).overlaps(&local(a)), overlaps, "{b} overlaps {a}");
        };
        check("*:443", "203.0.113.7:443", true, true);
        check("203.0.113.7:443", "*:443", false, true);
        check("*:443", "*:444", false, false);
        check("*:1-10", "203.0.113.0/24:5-15", false, true);
        check("203.0.113.0/24:443", "203.0.114.0/24:443", false, false);
        check("0.0.0.0/0:443", "[2001:db8::1]:443", false, false);
        check("*:1-10", "*:2-9", true, true);
    }

    #[test]
    fn mapped_locals_are_matched_as_ipv4() {
        let flow = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(local("203.0.113.7:443").contains(flow("[::ffff:203.0.113.7]:443")));
        assert!(!local("203.0.113.7:443").contains(flow("203.0.113.7:444")));
        assert!(!local("0.0.0.0/0:443").contains(flow("[2001:db8::1]:443")));
        assert!(local("*:443").contains(flow("[2001:db8::1]:443")));
    }
}
