//! Loss and blackouts as packet filter rules on the receiver's side.
//!
//! A packet's fate is decided by the **first** rule that matches it: blackouts, then rules for
//! chosen ports or addresses in the order in which they were set, then the rule for everything.
//! Only TCP is touched, so that neighbour discovery goes on in a blackout. Probabilities are 0..1
//! per packet as it arrives; without offloads a packet is one segment.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::command::{self, CommandError};
use crate::netns::{Namespace, NetnsError};

/// Which way the packets go that shall suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// Data on its way to the players.
    Client,
    /// Requests and acknowledgements on their way to the edge.
    Server,
}

/// Which packets a rule is about. Empty fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Ports of the server's side.
    pub server_ports: Option<RangeInclusive<u16>>,
    /// One address of the server's side.
    pub server: Option<IpAddr>,
    /// One address of the client's side.
    pub client: Option<IpAddr>,
}

impl Selector {
    /// Every TCP packet.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// The packets of one server port.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self {
            server_ports: Some(port..=port),
            ..Self::default()
        }
    }

    fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// The rule's match for one address family; nothing if it cannot match there.
    fn matcher(&self, towards: Towards, v6: bool) -> Option<String> {
        let (source, destination, port) = match towards {
            Towards::Client => (self.server, self.client, "--sport"),
            Towards::Server => (self.client, self.server, "--dport"),
        };
        let mut text = String::from("-p tcp");
        if let Some(ports) = &self.server_ports {
            let _ = write!(text, " {port} {}:{}", ports.start(), ports.end());
        }
        for (flag, address) in [("-s", source), ("-d", destination)] {
            if let Some(address) = address {
                if address.is_ipv6() != v6 {
                    return None;
                }
                let _ = write!(text, " {flag} {address}");
            }
        }
        Some(text)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    selector: Selector,
    /// 1 is a blackout.
    probability: f64,
}

/// A rule set that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The packet filter's tool said no.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Not a probability.
    #[error("loss {0} is not between 0 and 1")]
    Probability(f64),
}

/// The loss on packets that arrive in one namespace.
#[derive(Debug)]
pub struct Filter {
    towards: Towards,
    loss: Vec<Rule>,
    blackouts: Vec<Selector>,
}

impl Filter {
    /// No loss yet.
    #[must_use]
    pub fn new(towards: Towards) -> Self {
        Self {
            towards,
            loss: Vec::new(),
            blackouts: Vec::new(),
        }
    }

    /// Sets the loss of the packets that `selector` means; 0 exempts them from wider rules.
    ///
    /// # Errors
    /// When `probability` is none or the kernel refuses; the rules before stay in force.
    pub fn set_loss(
        &mut self,
        receiver: &Namespace,
        selector: &Selector,
        probability: f64,
    ) -> Result<(), FilterError> {
        if !(0.0..=1.0).contains(&probability) {
            return Err(FilterError::Probability(probability));
        }
        let mut loss = self.loss.clone();
        match loss.iter_mut().find(|rule| rule.selector == *selector) {
            Some(rule) => rule.probability = probability,
            None => loss.push(Rule {
                selector: selector.clone(),
                probability,
            }),
        }
        self.apply(receiver, loss, self.blackouts.clone())
    }

    /// Takes back what `set_loss` said about exactly this selector.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear_loss(
        &mut self,
        receiver: &Namespace,
        selector: &Selector,
    ) -> Result<(), FilterError> {
        let mut loss = self.loss.clone();
        loss.retain(|rule| rule.selector != *selector);
        self.apply(receiver, loss, self.blackouts.clone())
    }

    /// Drops every packet that `selector` means, or ends that.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn blackout(
        &mut self,
        receiver: &Namespace,
        selector: &Selector,
        on: bool,
    ) -> Result<(), FilterError> {
        let mut blackouts = self.blackouts.clone();
        blackouts.retain(|black| black != selector);
        if on {
            blackouts.push(selector.clone());
        }
        self.apply(receiver, self.loss.clone(), blackouts)
    }

    /// Replaces the whole table in one step per family, so that no packet sees half a rule set.
    fn apply(
        &mut self,
        receiver: &Namespace,
        loss: Vec<Rule>,
        blackouts: Vec<Selector>,
    ) -> Result<(), FilterError> {
        for (tool, v6) in [
            ("iptables-legacy-restore", false),
            ("ip6tables-legacy-restore", true),
        ] {
            let table = table(self.towards, v6, &loss, &blackouts);
            // -w: the lock file is one for all namespaces, others may hold it for a moment.
            command::run_with_input(receiver.command(tool).args(["-w", "20"]), &table)?;
        }
        self.loss = loss;
        self.blackouts = blackouts;
        Ok(())
    }
}

/// The filter table in the restore format.
fn table(towards: Towards, v6: bool, loss: &[Rule], blackouts: &[Selector]) -> String {
    let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n");
    for selector in blackouts {
        if let Some(matcher) = selector.matcher(towards, v6) {
            let _ = writeln!(text, "-A INPUT {matcher} -j DROP");
        }
    }
    let chosen = loss.iter().filter(|rule| !rule.selector.is_any());
    let wide = loss.iter().filter(|rule| rule.selector.is_any());
    for rule in chosen.chain(wide) {
        let Some(matcher) = rule.selector.matcher(towards, v6) else {
            continue;
        };
        if rule.probability > 0.0 {
            let p = rule.probability;
            let _ = writeln!(
                text,
                "-A INPUT {matcher} -m statistic --mode random --probability {p:.9} -j DROP"
            );
        }
        let _ = writeln!(text, "-A INPUT {matcher} -j ACCEPT");
    }
    text.push_str("COMMIT\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(selector: Selector, probability: f64) -> Rule {
        Rule {
            selector,
            probability,
        }
    }

    #[test]
    fn chosen_ports_come_before_the_rule_for_everything() {
        let rules = [rule(Selector::any(), 0.05), rule(Selector::port(8080), 0.0)];
        assert_eq!(
            table(Towards::Client, false, &rules, &[]),
            "*filter\n:INPUT ACCEPT [0:0]\n\
             -A INPUT -p tcp --sport 8080:8080 -j ACCEPT\n\
             -A INPUT -p tcp -m statistic --mode random --probability 0.050000000 -j DROP\n\
             -A INPUT -p tcp -j ACCEPT\nCOMMIT\n"
        );
    }

    #[test]
    fn an_address_of_the_other_family_gives_no_rule() {
        let v6 = Selector {
            client: Some("fd77::2".parse().unwrap()),
            ..Selector::default()
        };
        let empty = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";
        assert_eq!(
            table(Towards::Server, false, &[], std::slice::from_ref(&v6)),
            empty
        );
        assert_eq!(
            table(Towards::Server, true, &[], &[v6]),
            "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -s fd77::2 -j DROP\nCOMMIT\n"
        );
    }
}
