//! Files with secrets: read only where nobody else could have.
//!
//! Input: a path. Output: what is in it, or why it is no secret. Limits: as many bytes as are asked for.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Others may do nothing, the group may not write. It may read: `root:flowvitals 0640` is a service's file as an administrator keeps it.
const FORBIDDEN_MODE: u32 = 0o027;

/// At most so many bytes of a file.
///
/// # Errors
/// What the system says; [`io::ErrorKind::PermissionDenied`] where others than the owner and its group can read it, or others than the
/// owner write it.
pub fn read(path: &Path, at_most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        let text = format!(
            "has mode {mode:04o}: more than its owner and readers of its group can use it; chmod 0600 or 0640"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let mut content = Vec::new();
    file.take(at_most).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn what_others_can_use_is_no_secret() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("secret");
        fs::write(&path, "word").expect("written");
        for (mode, fits) in [
            (0o400, true),
            (0o600, true),
            (0o640, true),
            (0o644, false),
            (0o660, false),
            (0o601, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
            match read(&path, 3) {
                Ok(content) => assert_eq!((content.as_slice(), fits), (&b"wor"[..], true)),
                Err(error) => {
                    assert!(!fits, "{error}");
                    let said = error.to_string();
                    assert!(
                        said.starts_with(&format!("has mode {mode:04o}: ")),
                        "{said}"
                    );
                }
            }
        }
    }
}
