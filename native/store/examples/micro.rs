//! Parts of the engine, a batch at a time, for `bench/micro.ts`, which keeps the statistics:
//!
//! ```text
//! micro DIR        makes a pool in DIR/{d1,d2} (RF 2), then prints a line for each part: NAME BYTES, BYTES an op or 0;
//!                  then "ready". For each NAME on standard input it runs one batch and prints: OPS NANOSECONDS
//! ```

use holdfast_device::{Clock, RealClock, Rng, SharedMemory};
use holdfast_format::checksum::checksum;
use holdfast_format::frame::{FrameHeader, FramePlace};
use holdfast_format::inode::Time;
use holdfast_format::op::{Actor, Effects, OpHeader, OpKind, encode_op, page_checksums};
use holdfast_format::{BranchId, GroupId, Ino, Lsn, ROOT_INO, Row, Stamp, Uuid, key};
use holdfast_store::api::{Caller, FileSystem, WriteFlags};
use holdfast_store::engine::{DriveSpec, Engine, EngineOptions, VolumeCreate};
use holdfast_store::metadata::memtable::Memtable;
use holdfast_store::oplog::ring::Ring;
use holdfast_store::volume::{Volume, VolumeOptions};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };
const BLOCK: usize = 4096;
const FILE_BLOCKS: u64 = 16_384;
const NAMES: u64 = 200_000;
const RING_BYTES: usize = 64 << 20;
/// Ops of one frame: what a flush of many small writes packs together.
const FRAME_OPS: u16 = 64;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Part {
    name: &'static str,
    /// Of one op; 0: it moves none.
    bytes: usize,
    /// Of one batch.
    ops: u64,
    run: Box<dyn FnMut() -> Outcome<()>>,
}

fn part(name: &'static str, bytes: usize, ops: u64, run: impl FnMut() -> Outcome<()> + 'static) -> Part {
    Part { name, bytes, ops, run: Box::new(run) }
}

fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    (0..bytes / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

fn checksums() -> [Part; 2] {
    let run = |bytes: usize, ops: u64| {
        let data = content(1, bytes);
        move || {
            (0..ops).for_each(|_| _ = std::hint::black_box(checksum(std::hint::black_box(&data))));
            Ok(())
        }
    };
    [
        part("checksum 4 KiB", BLOCK, 4096, run(BLOCK, 4096)),
        part("checksum 1 MiB", 1 << 20, 16, run(1 << 20, 16)),
    ]
}

/// A write of one block, as the volume drafts it.
fn write_op(lsn: u64, payload: &[u8], out: &mut Vec<u8>) {
    let mut effects = Effects::new();
    let block = lsn % FILE_BLOCKS;
    effects.pages(Ino(7), block as u32, 0, &page_checksums(payload));
    effects.put(&key::inode(BranchId(1), Ino(7)), &[0; 96]);
    let header = OpHeader {
        lsn: Lsn(lsn),
        row: Row(1),
        branch: BranchId(1),
        kind: OpKind::Write,
        payload_rf: 2,
        payload_pages: 1,
        actor: Actor { uid: 0, gid: 0, pid: 1 },
        time: Time { sec: lsn as i64, nsec: 0 },
        ino: Ino(7),
        offset: block * BLOCK as u64,
        length: BLOCK as u64,
    };
    encode_op(out, &header, effects.as_bytes());
}

/// Checksum, encoding and the copy into the ring; room is given back once a batch, as a flush does.
fn ring_append() -> Part {
    const OPS: u64 = 1024;
    let ring = Ring::format(SharedMemory::heap(RING_BYTES), [1; 16], Uuid([2; 16]), GroupId(1));
    let payload = content(2, BLOCK);
    let mut lsn = 0;
    part("log append 4 KiB, into the ring", BLOCK, OPS, move || {
        let mut page_end = 0;
        let mut op = Vec::with_capacity(512);
        for _ in 0..OPS {
            lsn += 1;
            op.clear();
            write_op(lsn, &payload, &mut op);
            page_end = ring.append(&op, &payload).ok_or("the ring is full")? + BLOCK as u64;
        }
        ring.trim(ring.window().1, page_end);
        Ok(())
    })
}

/// The head of a frame of many small writes; payload is not touched by it.
fn batch_encode() -> Part {
    const OPS: u64 = 64;
    let payload = content(3, BLOCK);
    let mut ops = Vec::new();
    (1..=u64::from(FRAME_OPS)).for_each(|lsn| write_op(lsn, &payload, &mut ops));
    let mut header = FrameHeader {
        payload_only: false,
        op_count: FRAME_OPS,
        group: GroupId(1),
        row: Row(1),
        incarnation: 1,
        membership: 1,
        first_lsn: Lsn(1),
        durable_lsn: Lsn(0),
        ops_bytes: ops.len() as u32,
        header_rf: 2,
        wall_sec: 1,
        places: [FramePlace::default(); 3],
        ops_checksum: 0,
        previous_chain: 1,
        chain: 0,
    };
    let mut out = Vec::new();
    part("batch encode, 64 writes a frame", header.head_bytes(), OPS, move || {
        for _ in 0..OPS {
            header.previous_chain = header.chain;
            header.seal(&ops, &mut out);
            std::hint::black_box(&out);
        }
        Ok(())
    })
}

fn memtable() -> [Part; 2] {
    const OPS: u64 = 4096;
    let table = Arc::new(Memtable::new());
    let cell = |rng: &mut Rng| key::data(BranchId(1), Ino(7), rng.below(NAMES) as u32, 0);
    let mut lsn = 0;
    let mut rng = Rng::from_seed(4);
    let written = Arc::clone(&table);
    let put = part("metadata put, memtable", 0, OPS, move || {
        for _ in 0..OPS {
            lsn += 1;
            written.insert(&cell(&mut rng), Stamp { lsn: Lsn(lsn), row: Row(1) }, Some(&[7; 24]), Lsn(0));
        }
        Ok(())
    });
    let mut rng = Rng::from_seed(4);
    let get = part("metadata get, memtable", 0, OPS, move || {
        (0..OPS).for_each(|_| _ = std::hint::black_box(table.get(&cell(&mut rng))));
        Ok(())
    });
    [put, get]
}

fn file(volume: &Volume, name: &str) -> Outcome<Ino> {
    let attr =
        volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).map_err(|error| format!("{error:?}"))?;
    Ok(attr.ino)
}

fn write(volume: &Volume, ino: Ino, rng: &mut Rng, data: &[u8]) -> Outcome<()> {
    let offset = rng.below(FILE_BLOCKS) * BLOCK as u64;
    Ok(volume.write(&ROOT, ino, offset, data, WriteFlags::default()).map_err(|error| format!("{error:?}"))?)
}

fn commit(volume: &Arc<Volume>) -> Outcome<Part> {
    const OPS: u64 = 256;
    let (volume, ino) = (Arc::clone(volume), file(volume, "commit")?);
    let (mut rng, data) = (Rng::from_seed(5), content(5, BLOCK));
    Ok(part("commit of a 4 KiB write", BLOCK, OPS, move || {
        (0..OPS).try_for_each(|_| write(&volume, ino, &mut rng, &data))
    }))
}

/// Each job writes a block of a file of its own and waits until it is durable on both drives, again and again.
fn group_commit(volume: &Arc<Volume>, name: &'static str, jobs: usize) -> Outcome<Part> {
    const OPS_PER_JOB: u64 = 16;
    let files = (0..jobs).map(|job| file(volume, &format!("{name}-{job}"))).collect::<Outcome<Vec<_>>>()?;
    let (volume, data) = (Arc::clone(volume), content(6, BLOCK));
    let mut seed = 0;
    Ok(part(name, BLOCK, OPS_PER_JOB * jobs as u64, move || {
        seed += 1;
        let job = |ino: Ino| {
            let (volume, data) = (&volume, &data);
            move || {
                let mut rng = Rng::from_seed(seed << 8 | ino.0);
                (0..OPS_PER_JOB).try_for_each(|_| {
                    write(volume, ino, &mut rng, data).map_err(|error| error.to_string())?;
                    let (done, durable) = mpsc::channel();
                    volume.fsync(&ROOT, ino, Box::new(move |result| _ = done.send(result)));
                    let result = durable.recv().map_err(|error| error.to_string())?;
                    result.map_err(|error| format!("{error:?}"))
                })
            }
        };
        let jobs = files.iter().map(|ino| job(*ino)).collect();
        let results = holdfast_device::threads::run_parallel("micro", jobs);
        Ok(results.into_iter().collect::<Result<(), String>>()?)
    }))
}

/// Names in sorted tables, found through the block cache.
fn table_get(engine: &Engine, volume: &Arc<Volume>) -> Outcome<Part> {
    const OPS: u64 = 1024;
    for number in 0..NAMES {
        volume.forget(file(volume, &format!("name-{number}"))?, 1);
    }
    engine.settle()?;
    let (volume, mut rng) = (Arc::clone(volume), Rng::from_seed(7));
    Ok(part("metadata get, name and inode in tables", 0, OPS, move || {
        for _ in 0..OPS {
            let name = format!("name-{}", rng.below(NAMES));
            let attr =
                volume.lookup(ROOT_INO, name.as_bytes()).map_err(|error| format!("{name}: {error:?}"))?;
            volume.forget(attr.ino, 1);
        }
        Ok(())
    }))
}

fn make_pool(dir: &Path) -> Outcome<Arc<Engine>> {
    let drives = [dir.join("d1"), dir.join("d2")];
    for folder in drives.iter().chain([&dir.join("run")]) {
        std::fs::create_dir_all(folder)?;
    }
    let spec = |path: PathBuf| DriveSpec { path, bytes: Some(2 << 30), domain: String::new() };
    let options = EngineOptions { runtime_dir: dir.join("run"), ..EngineOptions::default() };
    let engine = Engine::create("micro", &drives.map(spec), options)?;
    let (name, owner) = ("v".to_owned(), (0, 0));
    engine.volume_create(&VolumeCreate {
        name,
        rf: 2,
        group: None,
        ack_write: false,
        quota_bytes: 0,
        owner,
    })?;
    Ok(engine)
}

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("which directory?")?);
    let engine = make_pool(&dir)?;
    let volume = engine.volume("v", VolumeOptions::default())?;
    let mut parts: Vec<Part> =
        checksums().into_iter().chain([ring_append(), batch_encode()]).chain(memtable()).collect();
    parts.push(table_get(&engine, &volume)?);
    parts.push(commit(&volume)?);
    parts.push(group_commit(&volume, "group commit 4 KiB, 1 waiter", 1)?);
    parts.push(group_commit(&volume, "group commit 4 KiB, 4 waiters", 4)?);
    let mut out = std::io::stdout();
    parts.iter().try_for_each(|part| writeln!(out, "{}\t{}", part.name, part.bytes))?;
    writeln!(out, "ready")?;
    for name in std::io::stdin().lock().lines() {
        let name = name?;
        let part = parts.iter_mut().find(|part| part.name == name).ok_or("no such part")?;
        let start = RealClock.boottime_ns();
        (part.run)()?;
        writeln!(out, "{} {}", part.ops, RealClock.boottime_ns() - start)?;
    }
    drop(parts);
    drop(volume);
    Ok(engine.close()?)
}
