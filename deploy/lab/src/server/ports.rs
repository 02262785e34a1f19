//! Free ports: bound all at once, so that none is given twice, and then released. Who gets one binds it seconds later, and until then
//! the kernel may choose it again: what it chose for this process once is not taken a second time.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::ServerError;

/// How often another number is tried where one must be free on several addresses.
const TRIES: usize = 50;

/// What the kernel chose for this process.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that is free on the loopback.
///
/// # Errors
/// When none is.
pub fn free_port() -> Result<u16, ServerError> {
    Ports::default().take(&[Ipv4Addr::LOCALHOST.into()], 0)
}

/// Ports that are held until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    /// `port`, or any that is free if it is 0, on all of `addresses`.
    pub(crate) fn take(&mut self, addresses: &[IpAddr], port: u16) -> Result<u16, ServerError> {
        let tries = if port == 0 { TRIES } else { 1 };
        let mut outcome = Err(refused(port)(ErrorKind::AddrNotAvailable.into()));
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
            let (taken, listener) = bound.map_err(refused(number))?;
            number = taken;
            listeners.push(listener);
        }
        if port == 0 {
            let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
            if !given.insert(number) {
                return Err(refused(number)(ErrorKind::AddrInUse.into()));
            }
        }
        self.held.append(&mut listeners);
        Ok(number)
    }
}

fn refused(port: u16) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::Port { port, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_again_though_it_is_free() {
        let given: BTreeSet<_> = (0..2_000).map(|_| free_port().unwrap()).collect();
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
