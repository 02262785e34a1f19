//! Reads member offsets from the kernel's type information (BTF).
//!
//! Input: the bytes of `/sys/kernel/btf/vmlinux`. Only structs, unions and what leads to their
//! members' sizes is understood. Format: Linux `Documentation/bpf/btf.rst`.

use ebpf_abi::offsets::{MEMBERS, Offsets};

/// Why offsets could not be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are no BTF of this machine's byte order, or end too early.
    #[error("the kernel's type information is malformed at byte {0}")]
    Malformed(usize),
    /// This kernel has no such member.
    #[error("this kernel has no `{0}`")]
    Missing(&'static str),
    /// The member is there, but it is not what we would read.
    #[error("`{path}` has {found} bytes in this kernel, {expected} expected")]
    Size {
        /// The member.
        path: &'static str,
        /// Bytes that the program would read.
        expected: u32,
        /// Bytes that it has.
        found: u32,
    },
}

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Where the type's record begins, and its three words.
#[derive(Clone, Copy)]
struct Type {
    body: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Type {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn len(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether members give bit offsets and bit-field sizes together.
    fn bit_fields(&self) -> bool {
        self.info >> 31 != 0
    }
}

/// A member's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bits: u32,
    type_id: u32,
}

/// The kernel's types.
pub struct Btf<'a> {
    bytes: &'a [u8],
    strings: usize,
    types: Vec<Type>,
}

impl<'a> Btf<'a> {
    /// Indexes the types.
    ///
    /// # Errors
    /// [`BtfError::Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let mut btf = Self {
            bytes,
            strings: 0,
            types: Vec::new(),
        };
        if btf.u32(0)? as u16 != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = btf.u32(4)? as usize;
        let start = header + btf.u32(8)? as usize;
        let end = start + btf.u32(12)? as usize;
        btf.strings = header + btf.u32(16)? as usize;
        let mut at = start;
        while at < end {
            let ty = Type {
                body: at + 12,
                name: btf.u32(at)?,
                info: btf.u32(at + 4)?,
                size_or_type: btf.u32(at + 8)?,
            };
            at = ty.body
                + match ty.kind() {
                    KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                    KIND_ARRAY => 12,
                    KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * ty.len(),
                    KIND_ENUM | KIND_FUNC_PROTO => 8 * ty.len(),
                    _ => 0,
                };
            btf.types.push(ty);
        }
        Ok(btf)
    }

    fn u32(&self, at: usize) -> Result<u32, BtfError> {
        let word = self.bytes.get(at..at + 4).ok_or(BtfError::Malformed(at))?;
        Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self
            .bytes
            .get(self.strings + offset as usize..)
            .unwrap_or_default();
        rest.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// Type ids count from 1; 0 is void.
    fn get(&self, id: u32) -> Option<&Type> {
        self.types.get((id as usize).checked_sub(1)?)
    }

    /// Follows type definitions and qualifiers.
    fn bare(&self, mut id: u32) -> Option<(u32, &Type)> {
        for _ in 0..32 {
            let ty = self.get(id)?;
            match ty.kind() {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Some((id, ty)),
            }
        }
        None
    }

    fn size(&self, id: u32) -> u32 {
        match self.bare(id) {
            Some((_, ty)) => match ty.kind() {
                KIND_PTR => 8,
                KIND_ARRAY => {
                    let element = self.u32(ty.body).unwrap_or(0);
                    self.size(element) * self.u32(ty.body + 8).unwrap_or(0)
                }
                KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 => ty.size_or_type,
                _ => 0,
            },
            None => 0,
        }
    }

    fn find_struct(&self, name: &str) -> Option<u32> {
        let index = self
            .types
            .iter()
            .position(|t| t.kind() == KIND_STRUCT && self.name(t.name) == name.as_bytes())?;
        Some(index as u32 + 1)
    }

    /// A member by name, also inside unnamed structs and unions.
    fn member(&self, id: u32, name: &str) -> Option<Place> {
        let (_, mut ty) = self.bare(id)?;
        if ty.kind() == KIND_ARRAY {
            ty = self.bare(self.u32(ty.body).ok()?)?.1;
        }
        if ty.kind() != KIND_STRUCT && ty.kind() != KIND_UNION {
            return None;
        }
        for i in 0..ty.len() {
            let at = ty.body + 12 * i;
            let (name_at, type_id, offset) = (
                self.u32(at).ok()?,
                self.u32(at + 4).ok()?,
                self.u32(at + 8).ok()?,
            );
            let bits = if ty.bit_fields() {
                offset & 0xff_ffff
            } else {
                offset
            };
            let own = self.name(name_at);
            if own == name.as_bytes() {
                return Some(Place { bits, type_id });
            }
            if own.is_empty()
                && let Some(inner) = self.member(type_id, name)
            {
                return Some(Place {
                    bits: bits + inner.bits,
                    type_id: inner.type_id,
                });
            }
        }
        None
    }

    /// `struct.member.member`
    fn place(&self, path: &str) -> Option<Place> {
        let mut parts = path.split('.');
        let mut place = Place {
            bits: 0,
            type_id: self.find_struct(parts.next()?)?,
        };
        for part in parts {
            let inner = self.member(place.type_id, part)?;
            place = Place {
                bits: place.bits + inner.bits,
                type_id: inner.type_id,
            };
        }
        Some(place)
    }

    /// All that the kernel side reads; `rtt_source` goes in as it is.
    ///
    /// # Errors
    /// [`BtfError::Missing`] or [`BtfError::Size`] for the first member that does not fit.
    pub fn offsets(&self, rtt_source: u32) -> Result<Vec<u32>, BtfError> {
        MEMBERS
            .iter()
            .map(|&(paths, expected)| {
                let (paths, shift) = match paths.split_once(':') {
                    Some(("", _)) => return Ok(rtt_source),
                    Some((path, _)) => (path, true),
                    None => (paths, false),
                };
                let place = paths
                    .split('|')
                    .find_map(|path| self.place(path))
                    .ok_or(BtfError::Missing(paths))?;
                let found = self.size(place.type_id);
                if expected != 0 && found != expected {
                    return Err(BtfError::Size {
                        path: paths,
                        expected,
                        found,
                    });
                }
                Ok(if shift {
                    place.bits % 8
                } else {
                    place.bits / 8
                })
            })
            .collect()
    }
}

const _: () = assert!(size_of::<Offsets>() == size_of::<u32>() * MEMBERS.len());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_refused() {
        assert_eq!(Btf::parse(&[]).err(), Some(BtfError::Malformed(0)));
        assert_eq!(Btf::parse(&[0; 64]).err(), Some(BtfError::Malformed(0)));
        let mut cut = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0];
        cut.extend([0; 8]);
        assert_eq!(Btf::parse(&cut).err(), Some(BtfError::Malformed(24)));
    }

    #[test]
    fn this_kernel_has_every_member() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: this kernel has no /sys/kernel/btf/vmlinux");
            return;
        };
        let btf = Btf::parse(&bytes).expect("the kernel's own BTF");
        let offsets = btf.offsets(7).expect("every member");
        assert_eq!(offsets.len(), MEMBERS.len());
        assert_eq!(offsets.last(), Some(&7));
        assert!(btf.place("tcp_sock.no_such_member").is_none());
    }
}
