//! Numbers that stand for native objects.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Handles grow from 1 and are never reused in a process, so that a stale one is always recognised.
pub struct Registry<T> {
    items: Mutex<Items<T>>,
    /// Items at most; the next one is refused.
    items_max: usize,
}

struct Items<T> {
    newest: u32,
    by_handle: BTreeMap<u32, Arc<T>>,
}

impl<T> Registry<T> {
    pub const fn new(items_max: usize) -> Self {
        Self { items: Mutex::new(Items { newest: 0, by_handle: BTreeMap::new() }), items_max }
    }

    /// `None` when the registry is full.
    pub fn add(&self, item: Arc<T>) -> Option<u32> {
        let mut items = self.items.lock();
        if items.by_handle.len() >= self.items_max || items.newest == u32::MAX {
            return None;
        }
        items.newest += 1;
        let handle = items.newest;
        items.by_handle.insert(handle, item);
        Some(handle)
    }

    pub fn get(&self, handle: u32) -> Option<Arc<T>> {
        self.items.lock().by_handle.get(&handle).cloned()
    }

    pub fn remove(&self, handle: u32) -> Option<Arc<T>> {
        self.items.lock().by_handle.remove(&handle)
    }
}
