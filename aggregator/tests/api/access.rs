//! Who may ask: tokens and certificates, on real sockets.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aggregator::api::{Access, AccessError, Refusal, Refusals, Server};
use aggregator::config::{Http, Tls};
use aggregator::daemon::Site;
use aggregator::merge::LiveOptions;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const TOKEN: &str = "correct-horse-battery";
const NEXT: &str = "staple-of-the-next-year";

fn write(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    path
}

fn with_token(file: PathBuf) -> Http {
    Http {
        token_file: Some(file),
        ..Http::default()
    }
}

async fn serve(http: &Http) -> (SocketAddr, Arc<Refusals>) {
    let site = Arc::new(Site::new("ams1", LiveOptions::default()));
    let server = Server::new(site).with_access(Access::of(http).expect("right files"));
    let refusals = server.refusals();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(server.serve(listener, std::future::pending()));
    (address, refusals)
}

fn request(path: &str, authorization: Option<&str>) -> String {
    let header = authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n")
}

/// The answer, or what came of it.
async fn converse(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    request: &str,
) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8(answer).expect("text"))
}

async fn plain(address: SocketAddr, path: &str, authorization: Option<&str>) -> String {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let answer = converse(stream, &request(path, authorization)).await;
    answer.expect("an answer")
}

#[tokio::test]
async fn a_token_is_asked_for_and_only_it_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(
        folder.path(),
        "tokens",
        &format!("{TOKEN}\n{NEXT}\n"),
        0o400,
    );
    let (address, refusals) = serve(&with_token(file)).await;
    let wrong = [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(TOKEN.to_owned()),
        Some(format!("Basic {TOKEN}")),
        Some(format!("Bearer {TOKEN}x")),
        Some(format!("Bearer {}", &TOKEN[1..])),
        Some(format!("Bearer {TOKEN} {NEXT}")),
    ];
    for (at, wrong) in wrong.iter().enumerate() {
        // Every path, also one that is not there: nobody learns what there is.
        for path in ["/metrics", "/api/v1/streams", "/openapi.json", "/no"] {
            let answer = plain(address, path, wrong.as_deref()).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{wrong:?}: {answer}");
            assert!(
                answer.contains("\r\nwww-authenticate: Bearer\r\n"),
                "{answer}"
            );
            assert!(answer.contains("{\"error\":\""), "{answer}");
        }
        assert_eq!(refusals.of(Refusal::Token), 4 * (at as u64 + 1));
    }
    for right in [
        format!("Bearer {TOKEN}"),
        format!("bearer  {TOKEN}"),
        format!("Bearer {NEXT}"),
    ] {
        let answer = plain(address, "/metrics", Some(&right)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{right}: {answer}");
        let counted = "flowvitals_aggregator_http_refused_total{reason=\"token\"} 32\n";
        assert!(answer.contains(counted), "{answer}");
    }
    // Who watches over the process, on this machine.
    let healthy = plain(address, "/healthz", None).await;
    assert!(!healthy.starts_with("HTTP/1.1 401 "), "{healthy}");
}

#[test]
fn files_that_will_not_do_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name, text: &str, mode| write(folder.path(), name, text, mode);
    let refused = |http: &Http, option, part: &str| {
        let error: AccessError = Access::of(http).expect_err(part);
        assert_eq!(error.option, option, "{error}");
        assert!(error.message.contains(part), "{error}\nhas no\n{part}");
        // What the file holds is not for the log.
        assert!(!error.message.contains("correct"), "{error}");
    };
    for (name, text, mode, part) in [
        ("world", TOKEN, 0o404, "everybody may use it (mode 0404)"),
        ("group", TOKEN, 0o460, "its group may write it"),
        ("empty", "\n\n", 0o400, "has 0 tokens"),
        ("short", "correct", 0o400, "token 1 is not 16 to 1024"),
        ("blank", "correct horse battery", 0o400, "visible ASCII"),
    ] {
        refused(&with_token(file(name, text, mode)), "token_file", part);
    }
    refused(
        &with_token(folder.path().join("none")),
        "token_file",
        "No such file",
    );
    refused(
        &with_token(folder.path().into()),
        "token_file",
        "no regular file",
    );

    let (ours, theirs) = (Authority::new(), Authority::new());
    let (cert, key) = ours.issue("localhost");
    let (_, other_key) = theirs.issue("localhost");
    let cert = file("cert", &cert, 0o444);
    let (key, other_key) = (file("key", &key, 0o400), file("other", &other_key, 0o400));
    let tls = Tls {
        cert: cert.clone(),
        key,
        client_ca: None,
    };
    let with = |tls| Http {
        tls: Some(tls),
        ..Http::default()
    };
    Access::of(&with(tls.clone())).expect("right files");
    let nothing = file("nothing", "", 0o400);
    for (option, part, wrong) in [
        (
            "tls_key",
            "does not fit tls_cert",
            Tls {
                key: other_key,
                ..tls.clone()
            },
        ),
        (
            "tls_key",
            "no private key",
            Tls {
                key: nothing.clone(),
                ..tls.clone()
            },
        ),
        (
            "tls_key",
            "everybody may use it",
            Tls {
                key: cert,
                ..tls.clone()
            },
        ),
        (
            "tls_cert",
            "has no certificate",
            Tls {
                cert: nothing.clone(),
                ..tls.clone()
            },
        ),
        (
            "client_ca",
            "has no certificate",
            Tls {
                client_ca: Some(nothing),
                ..tls
            },
        ),
    ] {
        refused(&with(wrong), option, part);
    }
}

/// Signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }
}

/// Asks over TLS, trusting `authority`, and showing a certificate if there is one.
async fn encrypted(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&(String, String)>,
) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = CertificateDer::pem_slice_iter(cert.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder
                .with_client_auth_cert(chain.map(|one| one.expect("PEM")).collect(), key)
                .expect("a pair")
        }
    };
    let stream = TcpStream::connect(address).await?;
    let name = "localhost".try_into().expect("a name");
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    converse(stream, &request("/metrics", None)).await
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_ours_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let (cert, key) = servers.issue("localhost");
    let http = Http {
        tls: Some(Tls {
            cert: write(folder.path(), "cert", &cert, 0o444),
            key: write(folder.path(), "key", &key, 0o400),
            client_ca: Some(write(folder.path(), "ca", &clients.pem(), 0o444)),
        }),
        ..Http::default()
    };
    let (address, refusals) = serve(&http).await;
    let known = clients.issue("dashboard");
    let answer = encrypted(address, &servers, Some(&known)).await;
    let answer = answer.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(refusals.of(Refusal::Handshake), 0);
    // None, a stranger's, and no TLS at all: no answer, each counted.
    for (at, own) in [None, Some(strangers.issue("dashboard"))]
        .iter()
        .enumerate()
    {
        let answer = encrypted(address, &servers, own.as_ref()).await;
        answer.expect_err("no answer");
        assert_eq!(refusals.of(Refusal::Handshake), at as u64 + 1);
    }
    let stream = TcpStream::connect(address).await.expect("a connection");
    let answer = converse(stream, &request("/metrics", None)).await;
    assert!(!answer.unwrap_or_default().contains("HTTP/1.1"));
    assert_eq!(refusals.of(Refusal::Handshake), 3);
}
