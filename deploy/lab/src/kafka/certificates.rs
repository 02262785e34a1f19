//! Certificates of a cluster that lives for a test: an authority, and one for each node. Made by `openssl`.
//!
//! Input: a folder, names. Output: `ca.pem`, a key and a certificate for each name, a `node.pem` of both for each node. Limits: for
//! 127.0.0.1 and localhost; valid for 30 days where nothing else is asked for; the authority's key lies beside.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;

use crate::command;
use crate::server::{ServerError, file_error};

const CURVE: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
const EXTENSIONS: &str =
    "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";

/// Makes the authority in `folder`.
pub(super) fn make_authority(folder: &Path) -> Result<(), ServerError> {
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let words = format!("req -x509 {CURVE} -days 30 -subj /CN=test-ca -keyout ca.key -out ca.pem");
    openssl(folder, &words)
}

/// How `openssl ca` signs; extensions are in a file of their own.
const SIGNING: &str = "[ca]\ndefault_ca=lab\n[lab]\ndatabase=index\nrand_serial=yes\nnew_certs_dir=.\ncertificate=ca.pem\n\
    private_key=ca.key\ndefault_md=sha256\ndefault_days=30\nunique_subject=no\npolicy=any\n[any]\ncommonName=supplied\n";

/// Makes a node's certificate by the authority in `folder`; `place` gets the node's files.
pub(super) fn make_node(folder: &Path, place: &Path, name: &str) -> Result<(), ServerError> {
    fs::create_dir_all(place).map_err(file_error(place))?;
    make(folder, name, None)?;
    let part = |file: &str| {
        let path = folder.join(file);
        fs::read_to_string(&path).map_err(file_error(&path))
    };
    let store = part(&format!("{name}.key"))? + &part(&format!("{name}.pem"))?;
    for (file, text) in [("node.pem", store), ("ca.pem", part("ca.pem")?)] {
        let path = place.join(file);
        fs::write(&path, text).map_err(file_error(&path))?;
    }
    Ok(())
}

/// Makes `NAME.key` and `NAME.pem` by the authority in `folder`, the certificate valid for so long.
pub(super) fn make(folder: &Path, name: &str, life: Option<Duration>) -> Result<(), ServerError> {
    for (file, text) in [
        ("extensions", EXTENSIONS),
        ("signing", SIGNING),
        ("index", ""),
    ] {
        let path = folder.join(file);
        fs::write(&path, text).map_err(file_error(&path))?;
    }
    openssl(
        folder,
        &format!("req {CURVE} -subj /CN={name} -keyout {name}.key -out {name}.csr"),
    )?;
    let end = life.map_or(String::new(), |life| {
        let end = Timestamp::now() + life;
        format!(" -enddate {}", end.strftime("%Y%m%d%H%M%SZ"))
    });
    openssl(
        folder,
        &format!(
            "ca -batch -notext -config signing -extfile extensions -in {name}.csr -out {name}.pem{end}"
        ),
    )
}

fn openssl(folder: &Path, words: &str) -> Result<(), ServerError> {
    let mut openssl = Command::new("openssl");
    openssl.args(words.split(' ')).current_dir(folder);
    command::run(&mut openssl)?;
    Ok(())
}
