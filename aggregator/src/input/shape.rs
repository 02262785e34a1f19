//! How much a message holds, seen before it is decoded: an empty submessage takes two bytes on the wire and a few hundred in
//! memory, so the size of the bytes alone bounds nothing.
//!
//! Input: protobuf bytes and the number of a field. Output: how often the field is there. Limits: no allocation; one pass.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Submessages of a message, by their bytes, as far as it is one: ends at the first byte that cannot be read, and says so once.
pub(super) fn submessages(message: &[u8], field: u32) -> impl Iterator<Item = Result<&[u8], Cut>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let found = next(&mut rest, field).transpose();
        if matches!(found, Some(Err(Cut))) {
            rest = &[];
        }
        found
    })
}

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut;

fn next<'a>(rest: &mut &'a [u8], field: u32) -> Result<Option<&'a [u8]>, Cut> {
    while !rest.is_empty() {
        let (tag, wire) = decode_key(rest).map_err(|_| Cut)?;
        if tag != field || wire != WireType::LengthDelimited {
            skip_field(wire, tag, rest, DecodeContext::default()).map_err(|_| Cut)?;
            continue;
        }
        let length = decode_varint(rest).map_err(|_| Cut)?;
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| rest.split_at_checked(length));
        let (inner, after) = split.ok_or(Cut)?;
        *rest = after;
        return Ok(Some(inner));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_submessages_among_other_fields() {
        let mut wire = Vec::new();
        prost::encoding::uint64::encode(1, &300, &mut wire);
        prost::encoding::bytes::encode(7, &b"one".to_vec(), &mut wire);
        prost::encoding::double::encode(2, &0.5, &mut wire);
        prost::encoding::bytes::encode(7, &Vec::new(), &mut wire);
        let found: Vec<_> = submessages(&wire, 7).collect();
        assert_eq!(found, [Ok(&b"one"[..]), Ok(&[])]);
        assert_eq!(submessages(&wire, 9).count(), 0);
        let cut: Vec<_> = submessages(&wire[..wire.len() - 1], 7).collect();
        assert_eq!(cut, [Ok(&b"one"[..]), Err(Cut)]);
    }

    proptest! {
        #[test]
        fn ends_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), field in 1_u32..40) {
            let steps = submessages(&bytes, field).take(bytes.len() + 2).count();
            prop_assert!(steps <= bytes.len() + 1);
        }
    }
}
