//! The sampling key: the same key on all nodes picks the same flows everywhere.
//!
//! In: `key_file` of the configuration (16 bytes, or 32 hex digits), or the state directory,
//! where a random key is made once. Out: a key and its public id. This is I/O at the rim. The key
//! never appears in an error or in debug output.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Config, ConfigError, Place};
use crate::secret;

/// File of the random key in the state directory.
pub const STATE_KEY_FILE: &str = "sampling.key";
/// What a key file may hold.
const ALLOWED: &str =
    "a file of exactly 16 bytes, or of 32 hex digits, that only its owner and group can read";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file of the configuration is no good.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The state directory neither holds a key nor takes one.
    #[error("no sampling key in the state directory: {path}: {source}")]
    State {
        /// The key's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key in the state directory is no key.
    #[error("{path} is not a sampling key: {message}; remove it and a new one is made")]
    StateContent {
        /// The key's path.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// Where the key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SamplingKey {
    /// A file that the operator named: the same on all nodes.
    FromFile {
        /// The file.
        path: PathBuf,
        /// Where the option stands.
        place: Place,
    },
    /// A random key of this node, kept in this file.
    FromState {
        /// The file.
        path: PathBuf,
    },
}

/// A key that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Its 16 bytes.
    pub bytes: [u8; 16],
}

impl Key {
    /// Public id: the first 4 bytes of the key's SHA-256, big endian.
    pub fn id(&self) -> u32 {
        let digest = Sha256::digest(self.bytes);
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key {{ id: {:08x} }}", self.id())
    }
}

impl Config {
    /// Where the sampling key comes from.
    pub fn sampling_key(&self) -> SamplingKey {
        match (&self.sampling.key_file, &self.places.key_file) {
            (Some(path), place) => SamplingKey::FromFile {
                path: path.clone(),
                place: place.clone().unwrap_or_else(|| Place::whole(path)),
            },
            (None, _) => SamplingKey::FromState {
                path: self.state.directory.join(STATE_KEY_FILE),
            },
        }
    }
}

impl SamplingKey {
    /// Reads the key; makes a random one if it belongs in the state directory and is not there.
    pub fn resolve(&self) -> Result<Key, KeyError> {
        match self.read()? {
            Some(key) => Ok(key),
            None => self.create(),
        }
    }

    /// Reads the key and changes nothing; none if the state directory holds none yet.
    pub fn read(&self) -> Result<Option<Key>, KeyError> {
        match self {
            Self::FromFile { path, place } => {
                let wrong = |message: String| ConfigError {
                    place: place.clone(),
                    option: "sampling.key_file".to_owned(),
                    message: format!("{}: {message}", path.display()),
                    allowed: ALLOWED.to_owned(),
                };
                let content = read_file(path).map_err(|error| wrong(error.to_string()))?;
                Ok(Some(parse(&content).map_err(wrong)?))
            }
            Self::FromState { path } => match read_file(path) {
                Ok(content) => {
                    parse(&content)
                        .map(Some)
                        .map_err(|message| KeyError::StateContent {
                            path: path.clone(),
                            message,
                        })
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(KeyError::State {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }

    /// Writes a random key beside its place and links it there, so that no one ever reads half
    /// of one and two starters agree on the first.
    fn create(&self) -> Result<Key, KeyError> {
        let (Self::FromState { path } | Self::FromFile { path, .. }) = self;
        let failed = |source: io::Error| KeyError::State {
            path: path.clone(),
            source,
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(failed)?;
        let half = directory.join(format!(".{STATE_KEY_FILE}.{}", std::process::id()));
        let written =
            write_key(&half, rand::random()).and_then(|()| match fs::hard_link(&half, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            });
        let removed = fs::remove_file(&half);
        written.and(removed).map_err(failed)?;
        self.read()?
            .ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))
    }
}

fn write_key(path: &Path, bytes: [u8; 16]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// At most the bytes that a key can have, and one more to see that there are too many.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    secret::read(path, 65)
}

fn parse(content: &[u8]) -> Result<Key, String> {
    let bytes = match <[u8; 16]>::try_from(content) {
        Ok(bytes) => bytes,
        Err(_) => from_hex(content.trim_ascii()).ok_or_else(|| match content.len() {
            65.. => "has more than 64 bytes".to_owned(),
            len => format!("has {len} bytes"),
        })?,
    };
    Ok(Key { bytes })
}

fn from_hex(digits: &[u8]) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = digits.try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(content: &[u8], mode: u32) -> Result<Option<Key>, KeyError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let place = Place {
            file: Path::new("a.toml").into(),
            line: 3,
            column: 12,
        };
        SamplingKey::FromFile { path, place }.read()
    }

    #[test]
    fn bytes_and_hex_are_the_same_key() {
        let bytes = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff";
        let plain = from_file(&bytes, 0o600).unwrap().unwrap();
        let hex = from_file(b"000102030405060708090a0b0c0d0EfF\n", 0o600)
            .unwrap()
            .unwrap();
        assert_eq!(plain, hex);
        assert_eq!(plain.bytes, bytes);
    }

    #[test]
    fn id_is_the_head_of_the_digest() {
        // sha256sum of 16 zero bytes begins with 374708ff.
        assert_eq!(Key { bytes: [0; 16] }.id(), 0x3747_08ff);
    }

    #[test]
    fn wrong_lengths_say_where_the_option_is() {
        for content in [
            &b""[..],
            b"short",
            &[b'a'; 31],
            &[b'x'; 32],
            &[b'a'; 33],
            &[7; 100],
        ] {
            let error = from_file(content, 0o600)
                .expect_err("too short or too long")
                .to_string();
            assert!(
                error.starts_with("a.toml:3:12: sampling.key_file: "),
                "{error}"
            );
            assert!(error.contains("exactly 16 bytes"), "{error}");
        }
    }

    #[test]
    fn missing_file_is_an_error_that_names_it() {
        let key = SamplingKey::FromFile {
            path: "/nonexistent/key".into(),
            place: Place {
                file: Path::new("a.toml").into(),
                line: 3,
                column: 12,
            },
        };
        let error = key.resolve().expect_err("no such file").to_string();
        assert!(error.contains("/nonexistent/key: No such file"), "{error}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let error = from_file(&[1; 16], 0o644).expect_err("refused").to_string();
        assert!(error.contains("has mode 0644"), "{error}");
        assert!(from_file(&[1; 16], 0o440).is_ok());
    }

    #[test]
    fn the_state_directory_gets_one_random_key() {
        let directory = tempfile::tempdir().unwrap();
        let state = |name: &str| {
            let path = directory.path().join(name).join(STATE_KEY_FILE);
            SamplingKey::FromState { path }
        };
        assert!(state("a").read().unwrap().is_none(), "reading makes none");
        let first = state("a").resolve().unwrap();
        assert_eq!(first, state("a").resolve().unwrap());
        assert_ne!(first, state("b").resolve().unwrap());
        let left: Vec<_> = fs::read_dir(directory.path().join("a")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing but the key: {left:?}");
    }

    #[test]
    fn a_broken_state_key_is_not_replaced_silently() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(STATE_KEY_FILE);
        write_key(&path, [0; 16]).unwrap();
        fs::write(&path, b"broken").unwrap();
        let error = SamplingKey::FromState { path }
            .resolve()
            .expect_err("no key")
            .to_string();
        assert!(error.contains("has 6 bytes"), "{error}");
    }

    #[test]
    fn debug_output_hides_the_key() {
        let shown = format!("{:?}", Key { bytes: [0; 16] });
        assert_eq!(shown, "Key { id: 374708ff }");
    }
}
