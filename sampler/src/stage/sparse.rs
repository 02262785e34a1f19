//! Words of which most are 0, as bytes. Pure.
//!
//! Input: words. Output: their bytes, and back. It is done for all cells at every window edge, so words are taken sixteen at a time: most
//! blocks are zeros and cost one comparison, and those of a block that are not take as many bytes as its largest needs.
//!
//! ```text
//! block   zeros u8, so many blocks of nothing but 0 before it   width u8, bytes of a word (1 to 8)
//!         set u16, bit i: word i of the block is not 0           those words, little endian
//! ```
//! Limits: fewer than [`MOST`] words.

/// Words of a block.
const BLOCK: usize = 16;
/// Words that can be told from one another.
pub const MOST: usize = BLOCK * 256;
const HEAD_BYTES: usize = 4;
const WORD_BYTES: usize = 8;

/// Appends the bytes of `words`.
pub fn put(words: &[u64], to: &mut Vec<u8>) {
    debug_assert!(words.len() < MOST);
    // Room for the last word to be written whole, whatever its width: a copy of fixed length is a single store.
    let mut bytes = [0; HEAD_BYTES + (BLOCK + 1) * WORD_BYTES];
    let mut zeros = 0;
    for block in words.chunks(BLOCK) {
        let all = block.iter().fold(0, |all, word| all | word);
        if all == 0 {
            zeros += 1;
            continue;
        }
        let width = WORD_BYTES - all.leading_zeros() as usize / 8;
        let (mut set, mut at) = (0u16, HEAD_BYTES);
        for (i, word) in block.iter().enumerate() {
            bytes[at..at + WORD_BYTES].copy_from_slice(&word.to_le_bytes());
            let there = *word != 0;
            set |= u16::from(there) << i;
            at += if there { width } else { 0 };
        }
        let [low, high] = set.to_le_bytes();
        bytes[..HEAD_BYTES].copy_from_slice(&[zeros, width as u8, low, high]);
        to.extend_from_slice(&bytes[..at]);
        zeros = 0;
    }
}

/// The words again, `length` of them; `None` if the bytes are not those of as many.
pub fn words(mut bytes: &[u8], length: usize) -> Option<Vec<u64>> {
    let mut words = vec![0; length];
    let mut first = 0;
    while let Some(([zeros, width, low, high], rest)) = bytes.split_first_chunk() {
        bytes = rest;
        first += usize::from(*zeros) * BLOCK;
        let set = u16::from_le_bytes([*low, *high]);
        for i in (0..BLOCK).filter(|i| set >> i & 1 == 1) {
            let (value, rest) = bytes.split_at_checked((*width).into())?;
            bytes = rest;
            let mut word = [0; WORD_BYTES];
            word.get_mut(..value.len())?.copy_from_slice(value);
            *words.get_mut(first + i)? = u64::from_le_bytes(word);
        }
        first += BLOCK;
    }
    bytes.is_empty().then_some(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(words: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(words, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn words_come_back(words in prop::collection::vec(prop_oneof![9 => Just(0u64), 1 => any::<u64>(), 1 => 1..300u64], 0..400)) {
            prop_assert_eq!(super::words(&bytes(&words), words.len()), Some(words));
        }

        #[test]
        fn any_bytes_are_words_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..MOST) {
            if let Some(words) = words(&bytes, length) {
                prop_assert_eq!(words.len(), length);
            }
        }
    }

    #[test]
    fn the_farthest_word_comes_back() {
        let mut all = vec![0; MOST - 1];
        all[MOST - 2] = u64::MAX;
        assert_eq!(bytes(&all).len(), HEAD_BYTES + WORD_BYTES);
        assert_eq!(words(&bytes(&all), MOST - 1), Some(all));
    }

    #[test]
    fn what_is_torn_or_too_long_is_none() {
        let one = bytes(&[0, 0, 0, 7, 0]);
        assert_eq!(one, [0, 1, 0b1000, 0, 7]);
        assert_eq!(words(&one, 4), Some(vec![0, 0, 0, 7]));
        assert_eq!(words(&one, 3), None);
        assert!((1..one.len()).all(|end| words(&one[..end], 4).is_none()));
        assert_eq!(words(&[0, 9, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1], 4), None);
    }
}
