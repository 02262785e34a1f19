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

#[cfg(test)]
mod tests {
    use service::config::Source;

    use super::super::{Config, read};

    fn parse(http: &str) -> Result<Config, Vec<String>> {
        let text = format!("[http]\n{http}");
        read(Source::new("a.toml", &text))
            .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn check(http: &str, expected: &[&str]) {
        let found = parse(http).expect_err(http);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            let begin = format!("a.toml:{expected}");
            assert!(found.starts_with(&begin), "{found}\nis not\n{expected}");
        }
    }

    /// Addresses that others reach, in every way to write one.
    const OUTSIDE: [&str; 4] = [
        "0.0.0.0:9741",
        "[::]:9741",
        "192.0.2.1:9741",
        "[::ffff:192.0.2.1]:9741",
    ];
    const TLS: &str = "tls_cert = '/c'\ntls_key = '/k'\n";

    #[test]
    fn beyond_loopback_only_who_is_known_may_ask() {
        for listen in OUTSIDE {
            let listen = format!("listen = '{listen}'\n");
            let refused = format!(
                "2:10: http.{}",
                listen.trim().replace(" =", ":").replace('\'', "`")
            );
            for open in [String::new(), TLS.to_owned()] {
                check(
                    &format!("{listen}{open}"),
                    &[&format!(
                        "{refused} can be reached from outside, and anybody could ask"
                    )],
                );
            }
            for closed in [
                format!("{TLS}token_file = '/t'"),
                format!("{TLS}client_ca = '/a'"),
            ] {
                let config = parse(&format!("{listen}{closed}")).expect(&closed);
                assert_eq!(config.warnings.len(), 0, "{closed}");
            }
            let clear = parse(&format!("{listen}token_file = '/t'")).expect("a token will do");
            let warnings: Vec<_> = clear.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].contains("clear text"), "{warnings:?}");
        }
    }

    #[test]
    fn on_loopback_nothing_is_needed_and_all_is_possible() {
        for listen in [
            "127.0.0.1:1",
            "127.9.9.9:9741",
            "[::1]:9741",
            "[::ffff:127.0.0.1]:9741",
        ] {
            let config = parse(&format!("listen = '{listen}'")).expect(listen);
            assert!(
                config.http.is_local() && config.warnings.is_empty(),
                "{listen}"
            );
        }
        let whole = format!("token_file = '/t'\n{TLS}client_ca = '/a'");
        let http = parse(&whole).expect("right").http;
        assert_eq!(http.token_file, Some("/t".into()));
        let tls = http.tls.expect("certificates");
        assert_eq!((tls.cert, tls.key), ("/c".into(), "/k".into()));
        assert_eq!(tls.client_ca, Some("/a".into()));
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        for wrong in ["9741", "127.0.0.1", "localhost:9741", "127.0.0.1:0"] {
            check(&format!("listen = '{wrong}'"), &["2:10: http.listen: "]);
        }
        check(
            "tls_cert = '/c'",
            &["2:12: http.tls_cert: has no tls_key beside it"],
        );
        check(
            "tls_key = '/k'",
            &["2:11: http.tls_key: has no tls_cert beside it"],
        );
        check(
            "client_ca = '/a'",
            &["2:13: http.client_ca: has no tls_cert and tls_key beside it"],
        );
        check("token_file = 'token'", &["2:14: http.token_file: "]);
        check("token = 'x'", &["2:1: http.token: unknown option"]);
    }
}
