//! Checksums: XXH3-64 everywhere. A block's checksum is over content only, so that it can travel (I-5).

/// Checksum of a block's stored content.
pub fn checksum(content: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(content)
}

/// Checksum of a record that also binds it to a context (an identity, a position, the previous record's checksum).
pub fn checksum_bound(context: u64, content: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(content, context)
}
