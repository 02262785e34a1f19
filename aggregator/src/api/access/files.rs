//! Reads the files of `[http]`, and refuses those that others could have read or written.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::{AccessError, Tls, Tokens};

/// Largest file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Tokens of one file: the one in use, and the next ones.
const MAX_TOKENS: usize = 16;
/// Fewer characters can be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// More than a header is for.
const MAX_TOKEN_BYTES: usize = 1024;

/// What is wrong with a file.
type Wrong = String;

/// Hashes of the tokens of a file, one a line.
pub(super) fn tokens(file: &Path) -> Result<Tokens, AccessError> {
    let wrong = |message: Wrong| AccessError {
        option: "token_file",
        message: format!("{}: {message}", file.display()),
    };
    let bytes = secret(file).map_err(wrong)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is no text".to_owned()))?;
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() || lines.len() > MAX_TOKENS {
        let count = lines.len();
        return Err(wrong(format!(
            "has {count} tokens, one a line; allowed are 1 to {MAX_TOKENS}"
        )));
    }
    for (at, line) in lines.iter().enumerate() {
        let good = line.bytes().all(|byte| byte.is_ascii_graphic());
        if !good || !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&line.len()) {
            return Err(wrong(format!(
                "token {} is not {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} visible ASCII characters",
                at + 1
            )));
        }
    }
    Ok(lines
        .iter()
        .map(|line| Sha256::digest(line).into())
        .collect())
}

/// The server's side of TLS.
pub(super) fn server(tls: &Tls) -> Result<ServerConfig, AccessError> {
    let wrong = |option, file: &Path, message: Wrong| AccessError {
        option,
        message: format!("{}: {message}", file.display()),
    };
    let chain = certificates(&tls.cert).map_err(|why| wrong("tls_cert", &tls.cert, why))?;
    let key = secret(&tls.key).and_then(|pem| {
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| format!("no private key: {error}"))
    });
    let key = key.map_err(|why| wrong("tls_key", &tls.key, why))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("tls_cert", &tls.cert, error.to_string()))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = verifier(file, provider).map_err(|why| wrong("client_ca", file, why))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| {
        let message = format!("does not fit tls_cert: {error}");
        wrong("tls_key", &tls.key, message)
    })
}

fn verifier(
    file: &Path,
    provider: Arc<tokio_rustls::rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Wrong> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let pem = read(open(file)?)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found.map_err(|error| format!("no certificate: {error}"))? {
        none if none.is_empty() => Err("has no certificate".to_owned()),
        found => Ok(found),
    }
}

/// A file that only its owner and group may read, and only we or root may write.
fn secret(file: &Path) -> Result<Vec<u8>, Wrong> {
    let opened = open(file)?;
    let found = opened.metadata().map_err(|error| error.to_string())?;
    let (mode, owner) = (found.mode() & 0o777, found.uid());
    if mode & 0o007 != 0 {
        return Err(format!(
            "everybody may use it (mode {mode:04o}): chmod o= it"
        ));
    }
    if mode & 0o020 != 0 {
        return Err(format!(
            "its group may write it (mode {mode:04o}): chmod g-w it"
        ));
    }
    let own = nix::unistd::Uid::effective().as_raw();
    if owner != 0 && owner != own {
        return Err(format!(
            "it belongs to user {owner}, who is neither root nor this process's"
        ));
    }
    read(opened)
}

fn open(file: &Path) -> Result<File, Wrong> {
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let found = opened.metadata().map_err(|error| error.to_string())?;
    match found.is_file() {
        true => Ok(opened),
        false => Err("is no regular file".to_owned()),
    }
}

fn read(file: File) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::new();
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    bounded
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(format!("has more than {MAX_FILE_BYTES} bytes")),
        false => Ok(bytes),
    }
}
