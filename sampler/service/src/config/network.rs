//! Addresses: where a daemon listens, whom it asks.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::error::Wrong;
use super::reader::{Parsed, text};

/// An address with port that nobody outside the machine can reach; `port` stands in the examples of messages.
///
/// # Errors
/// If it is no address, can be reached from outside, or has port 0.
pub fn loopback(value: &DeValue<'_>, port: u16) -> Parsed<SocketAddr> {
    let allowed =
        || format!("a loopback address with port, such as 127.0.0.1:{port} or [::1]:{port}");
    let address = address(value, &allowed())?;
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err(Wrong::new(
            format!("`{address}` can be reached from outside"),
            allowed(),
        )),
    }
}

/// An address with port; `allowed` says so.
///
/// # Errors
/// If it is none, or has port 0.
pub fn address(value: &DeValue<'_>, allowed: &str) -> Parsed<SocketAddr> {
    let text = text(value)?;
    let address: SocketAddr = text
        .parse()
        .map_err(|_| Wrong::new(format!("`{text}` is not an address with port"), allowed))?;
    match address.port() {
        0 => Err(Wrong::new("port 0 cannot be found by a scraper", allowed)),
        _ => Ok(address),
    }
}

/// Whether a text is `host:port`, an IPv6 host in brackets.
pub fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether a text can be a host: a name, an IPv4 address, an IPv6 address in brackets.
pub fn is_host(text: &str) -> bool {
    let bracketed = text.starts_with('[') && text.ends_with(']');
    let plain = !text.contains([':', '/', '[', ']', ',']) && !text.contains(char::is_whitespace);
    !text.is_empty() && (bracketed || plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let check = |text, good| assert_eq!(is_host_and_port(text), good, "{text}");
        check("127.0.0.1:19092", true);
        check("[2001:db8::7]:9092", true);
        check("kafka-1.example:9092", true);
        check("2001:db8::7:9092", false);
        check("host", false);
        check("host:0", false);
        check("host:65536", false);
        check(":9092", false);
        check("a,b:9092", false);
        check("a b:9092", false);
    }
}
