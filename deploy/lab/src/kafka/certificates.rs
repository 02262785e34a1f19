//! Certificates of a cluster that lives for a test: an authority, and one for each node. Made by `openssl`.
//!
//! Input: a folder, names of nodes. Output: `ca.pem` and a `node.pem` (key and certificate) for each. Limits: for 127.0.0.1 and
//! localhost; valid for 30 days; the authority's key lies beside.

use std::fs;
use std::path::Path;
use std::process::Command;

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

/// Makes a node's certificate by the authority in `folder`; `place` gets the node's files.
pub(super) fn make_node(folder: &Path, place: &Path, name: &str) -> Result<(), ServerError> {
    fs::create_dir_all(place).map_err(file_error(place))?;
    let extensions = folder.join("extensions");
    fs::write(&extensions, EXTENSIONS).map_err(file_error(&extensions))?;
    openssl(
        folder,
        &format!("req {CURVE} -subj /CN={name} -keyout {name}.key -out {name}.csr"),
    )?;
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out {name}.pem"
        ),
    )?;
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

fn openssl(folder: &Path, words: &str) -> Result<(), ServerError> {
    let mut openssl = Command::new("openssl");
    openssl.args(words.split(' ')).current_dir(folder);
    command::run(&mut openssl)?;
    Ok(())
}
