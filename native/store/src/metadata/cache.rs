//! Verified blocks of tables, in memory, within a budget of bytes.

#[derive(Clone, Copy, Default, Debug)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    pub bytes: u64,
}

/// One instance serves all trees of a daemon.
pub struct BlockCache {
    budget: usize,
}

impl BlockCache {
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget: budget_bytes }
    }
    pub fn budget_bytes(&self) -> usize {
        self.budget
    }
    pub fn stats(&self) -> CacheStats {
        CacheStats::default()
    }
}
