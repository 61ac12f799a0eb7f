//! Bytes that follow from a seed, so that an op's data never has to be stored.

/// `length` bytes of pattern `seed`. Pattern 0 is all zeros, so that written zeros are tested too.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    if seed == 0 {
        return vec![0; length];
    }
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        // xorshift64: enough for data that must merely differ.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// FNV-1a over 8-byte words: names contents in reports; not for adversaries.
pub fn digest(seed: u64, data: &[u8]) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    let mut words = data.chunks_exact(8);
    for word in &mut words {
        let mut wide = [0u8; 8];
        wide.copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(wide)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    for byte in words.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_differ_by_seed_and_repeat_by_seed() {
        assert_eq!(bytes(7, 100), bytes(7, 100));
        assert_ne!(bytes(7, 100), bytes(8, 100));
        assert_eq!(bytes(0, 9), [0; 9]);
        assert_eq!(bytes(7, 100)[..50], bytes(7, 50));
    }

    #[test]
    fn digest_sees_one_flipped_bit_at_any_place() {
        let data = bytes(3, 1001);
        for at in [0, 7, 8, 500, 999, 1000] {
            let mut other = data.clone();
            other[at] ^= 1;
            assert_ne!(digest(0, &data), digest(0, &other), "at {at}");
        }
    }
}
