//! An edge and its players: two namespaces and a link between them whose faults can be set.
//!
//! Addresses: server 10.77.x.1 and fd77:0:0:x::1, clients from .2 / ::2 on, as many as asked for.
//! x differs between the networks of one process, for readable logs only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::delay::{DelayError, DelayLink};
use crate::filter::{Filter, FilterError, Selector, Towards};
use crate::netns::{Namespace, NetnsError};
use crate::offload;

/// Name of the link's device in both namespaces.
pub const DEVICE: &str = "edge0";
static SUBNET: AtomicU8 = AtomicU8::new(1);

/// What joins the two namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// A veth pair: no delay to speak of, the kernel's own speed.
    #[default]
    Veth,
    /// A relay in user space that holds each packet for this long, each way.
    Delay(Duration),
}

/// How a network is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What joins the namespaces.
    pub link: Link,
    /// How many addresses the players have, per family: 1 to 200.
    pub client_addresses: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            link: Link::Veth,
            client_addresses: 1,
        }
    }
}

/// A network that cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A namespace said no.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The packet filter said no.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The relay said no.
    #[error(transparent)]
    Delay(#[from] DelayError),
    /// The device's offloads cannot be turned off.
    #[error("cannot turn the offloads of {DEVICE} off: {0}")]
    Offload(std::io::Error),
    /// More client addresses than a /24 holds, or none.
    #[error("client_addresses is {0}, allowed are 1 to 200")]
    ClientAddresses(u8),
}

/// Two joined namespaces. Removed when dropped.
#[derive(Debug)]
pub struct Network {
    // The relay ends before the namespaces go.
    delay: Option<DelayLink>,
    server: Namespace,
    client: Namespace,
    subnet: u8,
    client_addresses: u8,
    to_client: Filter,
    to_server: Filter,
}

impl Network {
    /// Makes both namespaces and the link, without loss.
    ///
    /// # Errors
    /// When a privilege or a tool is missing.
    pub fn new(options: Options) -> Result<Self, NetworkError> {
        if !(1..=200).contains(&options.client_addresses) {
            return Err(NetworkError::ClientAddresses(options.client_addresses));
        }
        let server = Namespace::new("server")?;
        let client = Namespace::new("client")?;
        let delay = match options.link {
            Link::Veth => {
                join_by_veth(&server, &client)?;
                None
            }
            Link::Delay(delay) => Some(DelayLink::new(&server, &client, delay)?),
        };
        let network = Self {
            delay,
            server,
            client,
            subnet: SUBNET.fetch_add(1, Ordering::Relaxed),
            client_addresses: options.client_addresses,
            to_client: Filter::new(Towards::Client),
            to_server: Filter::new(Towards::Server),
        };
        network.configure()?;
        Ok(network)
    }

    /// The edge's namespace.
    #[must_use]
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The players' namespace.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The relay, if the link is one.
    #[must_use]
    pub fn delay(&self) -> Option<&DelayLink> {
        self.delay.as_ref()
    }

    /// The edge's IPv4 address.
    #[must_use]
    pub fn server_v4(&self) -> IpAddr {
        self.v4(1)
    }

    /// The edge's IPv6 address.
    #[must_use]
    pub fn server_v6(&self) -> IpAddr {
        self.v6(1)
    }

    /// The players' IPv4 addresses.
    #[must_use]
    pub fn clients_v4(&self) -> Vec<IpAddr> {
        self.client_hosts().map(|host| self.v4(host)).collect()
    }

    /// The players' IPv6 addresses.
    #[must_use]
    pub fn clients_v6(&self) -> Vec<IpAddr> {
        self.client_hosts().map(|host| self.v6(host)).collect()
    }

    /// Sets a sysctl in both namespaces.
    ///
    /// # Errors
    /// When one of them refuses it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), NetworkError> {
        self.server.sysctl(key, value)?;
        self.client.sysctl(key, value)?;
        Ok(())
    }

    /// Sets the loss of what `selector` means, 0..1; see [`Filter::set_loss`].
    ///
    /// # Errors
    /// When it is no probability or the kernel refuses.
    pub fn set_loss(
        &mut self,
        towards: Towards,
        selector: &Selector,
        probability: f64,
    ) -> Result<(), NetworkError> {
        let (filter, receiver) = self.side(towards);
        Ok(filter.set_loss(receiver, selector, probability)?)
    }

    /// Takes the loss of exactly this selector back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear_loss(
        &mut self,
        towards: Towards,
        selector: &Selector,
    ) -> Result<(), NetworkError> {
        let (filter, receiver) = self.side(towards);
        Ok(filter.clear_loss(receiver, selector)?)
    }

    /// Drops everything that `selector` means in both directions, or ends that.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn blackout(&mut self, selector: &Selector, on: bool) -> Result<(), NetworkError> {
        for towards in [Towards::Client, Towards::Server] {
            let (filter, receiver) = self.side(towards);
            filter.blackout(receiver, selector, on)?;
        }
        Ok(())
    }

    fn side(&mut self, towards: Towards) -> (&mut Filter, &Namespace) {
        match towards {
            Towards::Client => (&mut self.to_client, &self.client),
            Towards::Server => (&mut self.to_server, &self.server),
        }
    }

    fn client_hosts(&self) -> impl Iterator<Item = u8> {
        2..2 + self.client_addresses
    }

    fn v4(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, self.subnet, host).into()
    }

    fn v6(&self, host: u8) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, self.subnet.into(), 0, 0, 0, host.into()).into()
    }

    fn configure(&self) -> Result<(), NetworkError> {
        // Duplicate address detection would hold IPv6 back for a second or two.
        for key in ["all", "default", DEVICE] {
            self.sysctl(&format!("net.ipv6.conf.{key}.accept_dad"), "0")?;
            self.sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), "0")?;
        }
        // What one connection taught the kernel must not change the next one of a test.
        self.sysctl("net.ipv4.tcp_no_metrics_save", "1")?;
        // A thousand players come at once, and their queue must hold them.
        self.sysctl("net.core.somaxconn", "16384")?;
        self.sysctl("net.ipv4.tcp_max_syn_backlog", "16384")?;
        self.sysctl("net.ipv4.ip_local_port_range", "10000 60999")?;
        let clients = self.clients_v4().into_iter().chain(self.clients_v6());
        give_addresses(&self.client, clients)?;
        give_addresses(
            &self.server,
            [self.server_v4(), self.server_v6()].into_iter(),
        )?;
        Ok(())
    }
}

fn give_addresses(
    namespace: &Namespace,
    addresses: impl Iterator<Item = IpAddr>,
) -> Result<(), NetworkError> {
    namespace.ip(&format!("link set {DEVICE} up"))?;
    for address in addresses {
        match address {
            IpAddr::V4(_) => namespace.ip(&format!("addr add {address}/24 dev {DEVICE}"))?,
            IpAddr::V6(_) => namespace.ip(&format!("addr add {address}/64 dev {DEVICE} nodad"))?,
        };
    }
    Ok(())
}

fn join_by_veth(server: &Namespace, client: &Namespace) -> Result<(), NetworkError> {
    // 10,000 packets of queue: a burst of a thousand players is lost where the test says, not here.
    server.ip(&format!(
        "link add name {DEVICE} txqueuelen 10000 type veth peer name {DEVICE} txqueuelen 10000 netns {}",
        client.name()
    ))?;
    for side in [server, client] {
        side.run_in(|| offload::disable(DEVICE))?
            .map_err(NetworkError::Offload)?;
    }
    Ok(())
}
