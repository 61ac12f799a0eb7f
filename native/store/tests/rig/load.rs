//! Files that are written at random, and what they should hold.

use super::{ROOT, Rig, read_all};
use holdfast_device::Rng;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::volume::Volume;
use std::collections::BTreeMap;
use std::sync::Arc;

const FILE_BYTES: usize = 200_000;

/// A volume and what its files should hold.
pub struct Load {
    pub volume: Arc<Volume>,
    pub files: BTreeMap<u64, (Ino, Vec<u8>)>,
    pub rng: Rng,
}

impl Load {
    pub fn new(rig: &Rig, name: &str, rf: u8, seed: u64) -> Self {
        Self { volume: rig.volume(name, rf), files: BTreeMap::new(), rng: Rng::from_seed(seed) }
    }

    /// Random writes of all sizes into a few files.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let at = self.rng.below(6);
            let volume = &self.volume;
            let (ino, content) = self.files.entry(at).or_insert_with(|| {
                let name = format!("file-{at}");
                let attributes = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created");
                (attributes.ino, Vec::new())
            });
            let offset = self.rng.below(FILE_BYTES as u64) as usize;
            let sizes = [7, 700, 4096, 30_000];
            let bytes: Vec<u8> =
                (0..sizes[self.rng.below(4) as usize]).map(|_| self.rng.next_u64() as u8).collect();
            volume.write(&ROOT, *ino, offset as u64, &bytes, WriteFlags::default()).expect("written");
            content.resize(content.len().max(offset + bytes.len()), 0);
            content[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
    }

    pub fn verify(&self, when: &str) {
        for (at, (ino, content)) in &self.files {
            assert!(read_all(&self.volume, *ino) == *content, "{when}: file {at}");
        }
    }
}
