//! An engine on simulated drives, without threads: the same calls give the same trace.
#![allow(dead_code)]

pub mod care;
pub mod census;
pub mod judge;
pub mod load;
pub mod manifest;
pub mod player;
pub mod prove;
pub mod step;
pub mod tree;

use holdfast_device::sim::CrashKind;
use holdfast_device::{Drive, Rng, SharedMemory, SimWorld};
use holdfast_format::{GroupId, Uuid};
use holdfast_store::api::{Caller, FileSystem};
use holdfast_store::engine::{Engine, EngineOptions, Foundation, RingMemory, VolumeCreate};
use holdfast_store::error::Result;
use holdfast_store::placement::PoolDrive;
use holdfast_store::volume::{Volume, VolumeOptions};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub const DRIVE_BYTES: u64 = 64 << 20;
pub const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };

/// Memory of the rings: kept across a simulated `kill -9`, lost in a power cut.
pub type Rings = Arc<Mutex<BTreeMap<GroupId, SharedMemory>>>;

pub struct Rig {
    pub world: SimWorld,
    pub rings: Rings,
    pub engine: Arc<Engine>,
}

pub fn options() -> EngineOptions {
    EngineOptions {
        memtable_bytes: 256 << 10,
        ring_bytes: 4 << 20,
        metadata_cache_bytes: 4 << 20,
        // Faults of drives are to be met.
        data_cache_bytes: 0,
        background: false,
        ..EngineOptions::default()
    }
}

fn ring_memory(rings: &Rings) -> RingMemory {
    let rings = rings.clone();
    Arc::new(move |_: Uuid, group: GroupId, bytes: usize| {
        let mut rings = rings.lock().expect("no panic under the lock");
        Ok(rings.entry(group).or_insert_with(|| SharedMemory::heap(bytes)).clone())
    })
}

/// An ordinary volume, alone in its group or in the one that is named.
pub fn volume_create(name: &str, rf: u8, group: Option<&str>) -> VolumeCreate {
    let (name, group) = (name.to_owned(), group.map(str::to_owned));
    VolumeCreate { name, rf, group, ack_write: false, quota_bytes: 0, owner: (0, 0) }
}

/// One of the pool's counters.
pub fn counter(engine: &Engine, name: &str) -> u64 {
    let counters = engine.status().expect("a status").counters;
    let found = counters.into_iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("no counter {name}")).1
}

pub fn foundation(world: &SimWorld, rings: &Rings, seed: u64) -> Foundation {
    Foundation {
        clock: Arc::new(world.clock()),
        rng: Rng::from_seed(seed),
        boot_id: [7; 16],
        memory: ring_memory(rings),
    }
}

impl Rig {
    /// A fresh pool on `drives` drives.
    pub fn create(seed: u64, drives: usize, options: EngineOptions) -> Self {
        Self::create_sized(seed, drives, DRIVE_BYTES, options)
    }

    /// Its slots are a 256th of a drive.
    pub fn create_sized(seed: u64, drives: usize, bytes: u64, options: EngineOptions) -> Self {
        let world = SimWorld::new(seed);
        let pool_drives = (0..drives)
            .map(|at| {
                let drive = world.add_drive(&format!("d{at}"), bytes * 2);
                PoolDrive { drive: Arc::new(drive), bytes: Some(bytes), domain: String::new() }
            })
            .collect();
        let rings = Rings::default();
        let engine = Engine::create_on("pool", pool_drives, options, foundation(&world, &rings, seed))
            .expect("a fresh pool");
        Self { world, rings, engine }
    }

    /// Starts again on the drives of a world, with the rings that are left.
    pub fn open(world: SimWorld, rings: Rings, options: EngineOptions) -> Result<Self> {
        let drives = world.drives().into_iter().map(|drive| Arc::new(drive) as Arc<dyn Drive>).collect();
        let engine = Engine::open_on(drives, options, foundation(&world, &rings, 99))?;
        Ok(Self { world, rings, engine })
    }

    /// The process dies: drives and rings stay as they are.
    pub fn kill(self, options: EngineOptions) -> Self {
        let Self { world, rings, engine } = self;
        drop(engine);
        Self::open(world, rings, options).expect("a killed engine starts again")
    }

    /// The power fails: what was not durable is gone, and so are the rings.
    pub fn power_fails(self, options: EngineOptions) -> Self {
        self.world.end_now(CrashKind::Power);
        let world = self.world.clone();
        drop(self);
        world.restore_power();
        Self::open(world, Rings::default(), options).expect("an engine starts after a power cut")
    }

    /// A second of an engine's threads, which put off what there is no room for.
    pub fn second(&self) {
        self.world.clock().advance(1_000_000_000);
        self.engine.groups().iter().for_each(|group| group.second_now().expect("a second"));
        while let Ok(true) = self.engine.housekeep_now(true) {}
        while let Ok(true) = self.engine.clean_now() {}
    }

    pub fn volume(&self, name: &str, rf: u8) -> Arc<Volume> {
        self.engine.volume_create(&volume_create(name, rf, None)).expect("a volume");
        self.mount(name)
    }

    pub fn mount(&self, name: &str) -> Arc<Volume> {
        self.engine.volume(name, VolumeOptions::default()).expect("the volume is free")
    }
}

pub fn read_all(volume: &Volume, ino: holdfast_format::Ino) -> Vec<u8> {
    let size = volume.getattr(ino).expect("attributes").size as usize;
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        let end = size.min(at + (64 << 10));
        let got = volume.read(&ROOT, ino, at as u64, &mut bytes[at..end]).expect("readable");
        assert!(got > 0);
        at += got;
    }
    bytes
}
