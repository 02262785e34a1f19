//! `[http]`: where the interface listens and who may ask.
//!
//! In: the section. Out: its typed form. The files that it names are read later, by who uses them: only the machine can judge them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use service::config::error::{Findings, Place, Wrong};
use service::config::network::address;
use service::config::reader::{Section, absolute_path};

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Address of `/metrics`, `/healthz` and the API.
    pub listen: SocketAddr,
    /// File with the tokens of those who may ask; none: nobody needs one.
    pub token_file: Option<PathBuf>,
    /// Certificates; none: plain HTTP.
    pub tls: Option<Tls>,
}

/// Encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with our certificate and those between it and the clients' trust.
    pub cert: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// PEM file with the certificates that must have signed the clients'; none: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9741)),
            token_file: None,
            tls: None,
        }
    }
}

/// Options that name files.
const FILES: [&str; 4] = ["token_file", "tls_cert", "tls_key", "client_ca"];

/// Where what is given stands.
type Places = BTreeMap<&'static str, Place>;

impl Http {
    /// Whether nobody outside the machine can reach it.
    pub fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// It, and where its files stand.
    pub(super) fn read(mut section: Section<'_>, findings: &mut Findings) -> (Self, Places) {
        let before = findings.errors.len();
        let default = Self::default();
        let listen_at = section.place_if_set("listen");
        let listen = section.or(findings, "listen", default.listen, |value| {
            address(
                value,
                &format!("an address with port, such as {}", default.listen),
            )
        });
        let mut places = Places::new();
        for key in FILES {
            if let Some(place) = section.place_if_set(key) {
                places.insert(key, place);
            }
        }
        let mut file =
            |findings: &mut Findings, key| section.optional(findings, key, absolute_path);
        let token_file = file(findings, "token_file");
        let (cert, key) = (file(findings, "tls_cert"), file(findings, "tls_key"));
        let client_ca = file(findings, "client_ca");
        let tls = cert.zip(key).map(|(cert, key)| Tls {
            cert,
            key,
            client_ca,
        });
        section.end(findings, &[]);
        let http = Self {
            listen,
            token_file,
            tls,
        };
        incomplete(&places, findings);
        if findings.errors.len() == before
            && let Some(place) = listen_at
        {
            http.check_who_may_ask(place, findings);
        }
        (http, places)
    }

    fn check_who_may_ask(&self, listen_at: Place, findings: &mut Findings) {
        let known_clients = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if self.is_local() {
            return;
        }
        if self.token_file.is_none() && !known_clients {
            let wrong = Wrong::new(
                format!(
                    "`{}` can be reached from outside, and anybody could ask",
                    self.listen
                ),
                "a loopback address, such as 127.0.0.1:9741 or [::1]:9741; any other with token_file, or with tls_cert, \
                 tls_key and client_ca",
            );
            return findings.error(listen_at, "http.listen", wrong);
        }
        if self.tls.is_none() {
            let message = "tokens and answers travel in clear text: add tls_cert and tls_key, or let a proxy encrypt";
            findings.warn(listen_at, "http.listen", message.to_owned());
        }
    }
}

/// Options that need one another.
fn incomplete(places: &Places, findings: &mut Findings) {
    for (key, needs) in [
        ("tls_cert", &["tls_key"][..]),
        ("tls_key", &["tls_cert"]),
        ("client_ca", &["tls_cert", "tls_key"]),
    ] {
        let Some(place) = places.get(key) else {
            continue;
        };
        if needs.iter().any(|other| !places.contains_key(other)) {
            let wrong = Wrong::new(format!("has no {} beside it", needs.join(" and ")), "");
            findings.error(place.clone(), &format!("http.{key}"), wrong);
        }
    }
}
