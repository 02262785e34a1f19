//! Free ports: bound all at once, so that none is given twice, and then released. Who gets one binds it seconds later; until then the
//! kernel may hand it out again, so that no process of ours takes one twice.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::ServerError;

/// How often another number is tried where one must be free on several addresses.
const TRIES: usize = 50;

/// What this process was given, by chance and not by its own wish.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports that are held until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    /// `port`, or any that is free if it is 0, on all of `addresses`.
    pub(crate) fn take(&mut self, addresses: &[IpAddr], port: u16) -> Result<u16, ServerError> {
        let tries = if port == 0 { TRIES } else { 1 };
        let mut outcome = Err(ServerError::Port {
            port,
            source: std::io::ErrorKind::AddrNotAvailable.into(),
        });
        for _ in 0..tries {
            outcome = self.try_take(addresses, port);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn try_take(&mut self, addresses: &[IpAddr], port: u16) -> Result<u16, ServerError> {
        let mut number = port;
        let mut listeners = Vec::new();
        for address in addresses {
            let bound = TcpListener::bind((*address, number))
                .and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
            let (taken, listener) = bound.map_err(|source| ServerError::Port {
                port: number,
                source,
            })?;
            number = taken;
            listeners.push(listener);
        }
        if port == 0 {
            let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
            if !given.insert(number) {
                let source = std::io::ErrorKind::AddrInUse.into();
                return Err(ServerError::Port {
                    port: number,
                    source,
                });
            }
        }
        self.held.append(&mut listeners);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_again_though_it_is_free() {
        let loopback = [IpAddr::from([127, 0, 0, 1])];
        let given: BTreeSet<_> = (0..2_000)
            .map(|_| Ports::default().take(&loopback, 0).unwrap())
            .collect();
        assert_eq!(given.len(), 2_000);
    }

    #[test]
    fn a_port_is_given_once_and_on_all_addresses() {
        let addresses = [1, 2, 3].map(|last| IpAddr::from([127, 0, 0, last]));
        let mut ports = Ports::default();
        let one = ports.take(&addresses, 0).unwrap();
        let other = ports.take(&addresses, 0).unwrap();
        assert_ne!(one, other);
        let taken = ports.take(&addresses[2..], one).unwrap_err().to_string();
        assert!(taken.contains(&one.to_string()), "{taken}");
        drop(ports);
        assert_eq!(Ports::default().take(&addresses, one).unwrap(), one);
    }
}
