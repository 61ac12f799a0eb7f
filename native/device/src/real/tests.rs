use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::drive::{Source, prefill, read_first};
use crate::{AlignedBuffer, Rng, Write};

/// A directory of its own that goes away with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("holdfast-device-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn drive(&self) -> RealDrive {
        RealDrive::open(&self.0).expect("a fresh directory is a drive")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leftovers in the temporary folder hurt nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    (0..bytes).map(|_| rng.next_u64() as u8).collect()
}

fn read(drive: &dyn Drive, file: FileId, offset: u64, bytes: usize) -> Vec<u8> {
    let mut into = vec![0xee; bytes];
    drive.read(file, offset, &mut into).expect("a read inside the file");
    into
}

#[test]
fn created_files_are_whole_listed_and_found_again() {
    let folder = Folder::new();
    let drive = folder.drive();
    std::fs::create_dir(folder.path().join("lost+found")).unwrap();
    assert!(drive.list().unwrap().is_empty(), "lost+found counts as empty");
    assert_eq!(drive.open("slab-000001").unwrap(), None);

    let second = drive.create("slab-000001", 1 << 20).unwrap();
    let first = drive.create("slab-000000", 8192).unwrap();
    assert_eq!(drive.list().unwrap(), ["slab-000000", "slab-000001"]);
    assert_eq!((drive.bytes(first).unwrap(), drive.bytes(second).unwrap()), (8192, 1 << 20));
    assert_eq!(read(&drive, first, 0, 8192), vec![0; 8192]);
    assert_eq!(drive.create("slab-000000", 4096).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(drive.bytes(first).unwrap(), 8192, "a refused creation changes nothing");
    assert_eq!(drive.open("slab-000000").unwrap(), Some(first), "one name, one id");

    let again = folder.drive();
    let found = again.open("slab-000001").unwrap().expect("survives the drive value");
    assert_eq!(again.bytes(found).unwrap(), 1 << 20);

    drive.remove("slab-000001").unwrap();
    assert_eq!(drive.list().unwrap(), ["slab-000000"]);
    assert_eq!(drive.read(second, 0, &mut [0]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(drive.remove("slab-000001").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn files_are_private_to_the_daemon() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.drive().create("superblock", 8192).unwrap();
    let mode = std::fs::metadata(folder.path().join("superblock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn names_that_leave_the_directory_or_are_taken_are_refused() {
    let folder = Folder::new();
    let drive = folder.drive();
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b", "lock", "lost+found", "x.creating"] {
        assert_eq!(drive.create(name, 4096).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(drive.open(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(drive.remove(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    assert!(drive.list().unwrap().is_empty());
}

#[test]
fn both_kinds_of_writes_read_back_from_any_memory() {
    let folder = Folder::new();
    let drive = folder.drive();
    let file = drive.create("slab", 1 << 20).unwrap();
    let noise = noise(7, 100_000);
    let mut shadow = vec![0u8; 1 << 20];
    // Offset, slices as ranges of `noise`: aligned whole pages, odd memory, odd lengths, many pieces.
    let shapes: [(usize, Vec<(usize, usize)>); 5] = [
        (0, vec![(0, 4096)]),
        (8192, vec![(1, 4096), (5001, 8192)]),
        (65536, vec![(3, 100), (700, 3996)]),
        (100_001, vec![(9, 77)]),
        (131_072, (0..3000).map(|piece| (piece * 8, 4096 / 512)).collect()),
    ];
    for durability in [Durability::Cached, Durability::Durable] {
        for (round, (offset, ranges)) in shapes.iter().enumerate() {
            let slices: Vec<&[u8]> =
                ranges.iter().map(|&(start, len)| &noise[start + round..][..len]).collect();
            drive.write(file, *offset as u64, &slices, durability).unwrap();
            let bytes = slices.concat();
            shadow[*offset..][..bytes.len()].copy_from_slice(&bytes);
            assert_eq!(read(&drive, file, 0, 1 << 20), shadow, "{durability:?} shape {round}");
        }
        drive.flush().unwrap();
    }
    drop(drive);
    let drive = folder.drive();
    let file = drive.open("slab").unwrap().unwrap();
    assert_eq!(read(&drive, file, 0, 1 << 20), shadow);
}

#[test]
fn ranges_past_the_end_are_refused() {
    let folder = Folder::new();
    let drive = folder.drive();
    let file = drive.create("slab", 8192).unwrap();
    let page = [1u8; 4096];
    for durability in [Durability::Cached, Durability::Durable] {
        for offset in [4097, 8192, u64::MAX - 10] {
            let error = drive.write(file, offset, &[&page], durability).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{offset}");
        }
    }
    let beyond = [Source { drive: &drive, file, offset: 4096 }];
    assert_eq!(prefill(&beyond, 8192)[0].as_ref().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(drive.read(file, 8000, &mut [0; 193]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(drive.bytes(file).unwrap(), 8192);
}

#[test]
fn prefill_settles_its_range_and_touches_nothing_else() {
    let folder = Folder::new();
    let drive = folder.drive();
    let bytes = 3 << 20;
    let file = drive.create("slab", bytes).unwrap();
    let ones = vec![1u8; 8192];
    drive.write(file, 0, &[&ones], Durability::Durable).unwrap();
    drive.write(file, bytes - 8192, &[&ones], Durability::Durable).unwrap();
    let settled = || drive.file(file).unwrap().is_settled(0, bytes).unwrap();
    assert!(!settled());
    prefill(&[Source { drive: &drive, file, offset: 8192 }], bytes - 16384).pop().unwrap().unwrap();
    assert_eq!(settled(), drive.flush_domain.is_some());
    let mut expected = vec![0; bytes as usize];
    expected[..8192].fill(1);
    expected[bytes as usize - 8192..].fill(1);
    assert_eq!(read(&drive, file, 0, bytes as usize), expected);
}

#[test]
fn a_flush_covers_the_files_with_cached_writes_and_no_others() {
    let folder = Folder::new();
    let drive = folder.drive();
    let files = ["one", "two"].map(|name| drive.create(name, 8192).unwrap());
    let dirty = || files.map(|file| drive.file(file).unwrap().dirty.load(Ordering::Relaxed));
    drive.write(files[0], 0, &[&[1; 4096]], Durability::Durable).unwrap();
    assert_eq!(dirty(), [false, false]);
    drive.write(files[1], 4096, &[&[1; 10]], Durability::Cached).unwrap();
    assert_eq!(dirty(), [false, true]);
    drive.flush().unwrap();
    assert_eq!(dirty(), [false, false]);
}

#[test]
fn after_a_failed_flush_nothing_counts_as_durable() {
    let folder = Folder::new();
    let drive = folder.drive();
    let file = drive.create("slab", 8192).unwrap();
    drive.write(file, 0, &[&[1; 4096]], Durability::Cached).unwrap();
    // What `flush` does when fdatasync fails, which no file system here does on demand.
    drive.flush_failed.store(true, Ordering::Release);
    assert!(drive.flush().is_err());
    assert!(drive.write(file, 0, &[&[2; 4096]], Durability::Durable).is_err());
    let slices = [&[2u8; 4096][..]];
    let write = || Write { drive: &drive, file, offset: 0, slices: &slices };
    assert!(crate::drive::write_durable(&[write(), write()]).iter().all(Result::is_err));
    assert_eq!(read(&drive, file, 0, 4096), [1; 4096]);
}

#[test]
fn parallel_writes_land_on_every_drive_and_report_their_own_errors() {
    let folders = [Folder::new(), Folder::new(), Folder::new()];
    let drives: Vec<RealDrive> = folders.iter().map(Folder::drive).collect();
    let files: Vec<FileId> = drives.iter().map(|drive| drive.create("slab", 1 << 20).unwrap()).collect();
    let mut aligned = AlignedBuffer::zeroed(8192);
    aligned.copy_from_slice(&noise(1, 8192));
    let odd = noise(2, 4097);
    // Direct from aligned memory, then copied from odd memory; the third drive's write does not fit.
    for (offset, slices) in
        [(4096, &[&aligned[..4096], &aligned[4096..]]), (32768, &[&odd[1..], &aligned[..4096]])]
    {
        let writes: Vec<Write<'_>> = (0..3)
            .map(|at| Write {
                drive: &drives[at],
                file: files[at],
                offset: if at == 2 { 1 << 20 } else { offset },
                slices,
            })
            .collect();
        let results = crate::drive::write_durable(&writes);
        assert_eq!(results.len(), 3);
        assert_eq!(results[2].as_ref().unwrap_err().kind(), ErrorKind::InvalidInput);
        for at in 0..2 {
            results[at].as_ref().unwrap();
            assert_eq!(read(&drives[at], files[at], offset, 8192), slices.concat());
            assert_eq!(read(&drives[at], files[at], offset - 4096, 4096), vec![0; 4096], "nothing beside it");
        }
        assert_eq!(read(&drives[2], files[2], 0, 1 << 20), vec![0; 1 << 20]);
    }
}

#[test]
fn blocks_that_an_earlier_process_wrote_are_synced_before_they_count() {
    let folder = Folder::new();
    let drive = folder.drive();
    let file = drive.create("slab", 1 << 20).unwrap();
    // Written, and not synced: as a killed process leaves it.
    let found = drive.file(file).unwrap();
    found.write(0, &[&AlignedBuffer::zeroed(1 << 20)], Durability::Cached).unwrap();
    let again = folder.drive();
    let file = again.open("slab").unwrap().unwrap();
    let found = again.file(file).unwrap();
    // Blocks that were delayed have no place yet: only the sync gives them one.
    assert_eq!(found.is_settled(0, 1 << 20).unwrap(), again.flush_domain.is_some());
}

#[test]
fn sets_larger_than_the_ring_and_the_thread_road_give_the_same() {
    let folder = Folder::new();
    let drive = folder.drive();
    let file = drive.create("slab", 1 << 20).unwrap();
    let pages: Vec<Vec<u8>> = (0..40).map(|seed| noise(seed, 4096)).collect();
    let slices: Vec<[&[u8]; 1]> = pages.iter().map(|page| [&page[..]]).collect();
    let writes: Vec<Write<'_>> = slices
        .iter()
        .enumerate()
        .map(|(at, slices)| Write { drive: &drive, file, offset: at as u64 * 4096, slices })
        .collect();
    assert!(crate::drive::write_durable(&writes).iter().all(Result::is_ok));
    assert_eq!(read(&drive, file, 0, 40 * 4096), pages.concat());
    drive.write(file, 0, &[&vec![0; 1 << 20]], Durability::Durable).unwrap();
    assert!(parallel::write_on_threads(&writes).iter().all(Result::is_ok));
    assert_eq!(read(&drive, file, 0, 40 * 4096), pages.concat());
}

#[test]
fn a_second_lock_is_refused_until_the_first_holder_is_gone() {
    let folder = Folder::new();
    let (first, second) = (folder.drive(), folder.drive());
    first.lock().unwrap();
    first.lock().unwrap();
    let error = second.lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("another Holdfast daemon"), "{error}");
    assert!(first.list().unwrap().is_empty(), "the lock is not content");
    drop(first);
    second.lock().unwrap();
}

#[test]
fn swapped_in_links_are_refused() {
    let (folder, outside) = (Folder::new(), Folder::new());
    let drive = folder.drive();
    let victim = outside.path().join("victim");
    std::fs::copy("/proc/self/cmdline", &victim).unwrap();
    let before = std::fs::read(&victim).unwrap();

    std::os::unix::fs::symlink(&victim, folder.path().join("slab-soft")).unwrap();
    std::fs::hard_link(&victim, folder.path().join("slab-hard")).unwrap();
    std::fs::create_dir(folder.path().join("slab-folder")).unwrap();
    assert_eq!(drive.open("slab-soft").unwrap_err().raw_os_error(), Some(libc::ELOOP));
    assert_eq!(drive.open("slab-hard").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(drive.open("slab-folder").is_err());
    assert_eq!(drive.create("slab-soft", 4096).unwrap_err().kind(), ErrorKind::AlreadyExists);
    std::os::unix::fs::symlink(&victim, folder.path().join("lock")).unwrap();
    assert_eq!(drive.lock().unwrap_err().raw_os_error(), Some(libc::ELOOP));
    std::os::unix::fs::symlink(&victim, folder.path().join("slab-new.creating")).unwrap();
    drive.create("slab-new", 4096).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), before);

    // The directory itself: a link to it is no drive, with a trailing slash neither.
    let link = outside.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    for path in [link.clone(), link.join("")] {
        assert!(RealDrive::open(&path).is_err(), "{}", path.display());
    }
}

#[test]
fn a_directory_swapped_under_an_open_drive_changes_nothing() {
    let (folder, other) = (Folder::new(), Folder::new());
    let inner = folder.path().join("drive");
    std::fs::create_dir(&inner).unwrap();
    let drive = RealDrive::open(&inner).unwrap();
    std::fs::rename(&inner, folder.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(other.path(), &inner).unwrap();
    drive.create("slab", 4096).unwrap();
    assert!(folder.path().join("moved/slab").exists());
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn unfit_directories_are_refused_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let missing = RealDrive::open(folder.path().join("missing")).err().expect("refused");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("missing"), "{missing}");
    std::fs::copy("/proc/self/cmdline", folder.path().join("file")).unwrap();
    assert!(RealDrive::open(folder.path().join("file")).is_err());
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let open = RealDrive::open(folder.path()).err().expect("refused");
    assert_eq!(open.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_leftover_temporary_is_invisible_and_replaced() {
    let folder = Folder::new();
    let drive = folder.drive();
    std::fs::copy("/proc/self/cmdline", folder.path().join("slab.creating")).unwrap();
    assert!(drive.list().unwrap().is_empty());
    let file = drive.create("slab", 8192).unwrap();
    assert_eq!(read(&drive, file, 0, 8192), vec![0; 8192]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn space_tells_the_disk() {
    let folders = [Folder::new(), Folder::new()];
    let [one, two] = folders.each_ref().map(|folder| folder.drive().space().unwrap());
    assert!(one.free_bytes > 0 && one.free_bytes <= one.total_bytes);
    assert_eq!(one.disk_id, two.disk_id);
    assert_ne!(one.disk_id, RealDrive::open("/proc").unwrap().space().unwrap().disk_id);
}

/// A small tmpfs; `None` (with the reason printed) where this user may not mount.
struct SmallDisk(Folder);

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let folder = Folder::new();
        let target = std::ffi::CString::new(folder.path().to_str()?).ok()?;
        let data = std::ffi::CString::new(format!("size={bytes},mode=0700")).ok()?;
        let kind = c"tmpfs".as_ptr();
        // SAFETY: all strings end with NUL and outlive the call.
        let result = unsafe { libc::mount(kind, target.as_ptr(), kind, 0, data.as_ptr().cast()) };
        if result == -1 {
            println!("skipped: mounting a tmpfs is refused ({})", io::Error::last_os_error());
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = std::ffi::CString::new(self.0.path().to_str().unwrap()).unwrap();
        // SAFETY: the string ends with NUL and outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_disk_says_so_and_keeps_what_it_has() {
    let Some(disk) = SmallDisk::new(4 << 20) else { return };
    let drive = disk.0.drive();
    let file = drive.create("slab-000000", 2 << 20).unwrap();
    assert_eq!(drive.create("slab-000001", 8 << 20).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(drive.list().unwrap(), ["slab-000000"]);
    drive.create("slab-000001", 1 << 20).expect("the refused creation gave its space back");
    assert!(drive.space().unwrap().free_bytes <= 1 << 20);
    drive.write(file, 0, &[&[5; 4096]], Durability::Durable).expect("preallocated space is ours");
    assert_eq!(read(&drive, file, 0, 4096), [5; 4096]);
}

#[test]
fn reads_race_over_copies_and_leave_nothing_behind() {
    let folders = [Folder::new(), Folder::new()];
    let drives: Vec<RealDrive> = folders.iter().map(Folder::drive).collect();
    let bytes = noise(9, 1 << 20);
    let files: Vec<FileId> = drives
        .iter()
        .map(|drive| {
            let file = drive.create("f", 1 << 20).expect("created");
            drive.write(file, 0, &[&bytes], Durability::Durable).expect("written");
            file
        })
        .collect();
    // Direct writes leave nothing in the page cache: the first reads ask the drives, later ones may not.
    for round in 0..64usize {
        let (offset, length) = (round * 4096, 4096 << (round % 5));
        let sources: Vec<Source<'_>> = (0..2)
            .map(|at| Source { drive: &drives[at], file: files[at], offset: offset as u64 })
            .collect();
        let mut into = vec![0; length];
        // Without any patience both are asked; the refused one must not be what is returned.
        let refused = round % 2;
        let first = read_first(&sources, &mut into, 0, &mut |answer| answer.source != refused);
        assert_eq!(first.winner, Some(1 - refused), "round {round}");
        assert!(into == bytes[offset..offset + length], "round {round}");
    }
    let beyond = [
        Source { drive: &drives[0], file: files[0], offset: (1 << 20) - 4096 },
        Source { drive: &drives[1], file: files[1], offset: 0 },
    ];
    let mut said = Vec::new();
    let first = read_first(&beyond, &mut vec![0; 8192], 1 << 30, &mut |answer| {
        said.push(answer.bytes.map(<[u8]>::len).map_err(std::io::Error::kind));
        answer.bytes.is_ok()
    });
    assert_eq!((first.winner, said), (Some(1), vec![Err(ErrorKind::UnexpectedEof), Ok(8192)]));
}

/// Exchanges two names as fast as it can until told to stop; how often.
fn race(one: &Path, two: &Path, stop: &std::sync::atomic::AtomicBool) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let (one, two) = (name(one), name(two));
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let (number, at, flags) = (libc::SYS_renameat2, libc::AT_FDCWD, libc::RENAME_EXCHANGE);
        // SAFETY: both names are C strings that outlive the call.
        let result = unsafe { libc::syscall(number, at, one.as_ptr(), at, two.as_ptr(), flags) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        count += 1;
    }
    count
}

/// Somebody who may write above a drive swaps it, or a directory above it, for a link to ours, again and again: a drive
/// is opened as the directory it is or not at all, and nothing is ever written behind the link (FAULTS.md §4, 8).
#[test]
fn a_racer_with_links_gets_nothing_written_elsewhere() {
    for above in [false, true] {
        let (folder, victims) = (Folder::new(), Folder::new());
        let victim = if above { victims.path().join("drive") } else { victims.path().to_owned() };
        let (swapped, link) = (folder.path().join("here"), folder.path().join("link"));
        let drive = if above { swapped.join("drive") } else { swapped.clone() };
        std::fs::create_dir_all(&drive).unwrap();
        std::fs::create_dir_all(&victim).unwrap();
        std::os::unix::fs::symlink(victims.path(), &link).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (mut opened, mut refused) = (0u32, 0u32);
        let swaps = std::thread::scope(|scope| {
            let racer = scope.spawn(|| race(&swapped, &link, &stop));
            while (opened < 200 || refused < 200) && opened + refused < 200_000 {
                match RealDrive::open(&drive) {
                    Ok(real) => {
                        opened += 1;
                        real.lock().unwrap();
                        real.create("probe", 4096).unwrap();
                        real.remove("probe").unwrap();
                    }
                    Err(error) => {
                        refused += 1;
                        let known = [libc::ELOOP, libc::ENOTDIR, libc::ENOENT];
                        assert!(known.iter().any(|code| error.to_string().contains(&format!("os error {code}"))), "{error}");
                    }
                }
                let written: Vec<_> = std::fs::read_dir(&victim).unwrap().collect();
                assert!(written.is_empty(), "written behind the link: {written:?}");
            }
            stop.store(true, Ordering::Relaxed);
            racer.join().unwrap()
        });
        assert!(opened >= 200 && refused >= 200, "{opened} opened, {refused} refused, {swaps} swaps");
    }
}

#[test]
fn each_answers_for_itself_whether_its_range_is_direct_or_not() {
    let folders: Vec<Folder> = (0..40).map(|_| Folder::new()).collect();
    let drives: Vec<RealDrive> = folders.iter().map(Folder::drive).collect();
    let files: Vec<FileId> = drives.iter().map(|drive| drive.create("f", 16384).expect("room")).collect();
    for (at, (drive, file)) in drives.iter().zip(&files).enumerate() {
        drive.write(*file, 4096, &[&[at as u8 + 1; 4096]], Durability::Durable).expect("written");
    }
    for (offset, bytes) in [(4096, 4096), (4100, 100)] {
        // The last one ends before what is asked for.
        let sources: Vec<Source<'_>> = drives
            .iter()
            .zip(&files)
            .enumerate()
            .map(|(at, (drive, file))| Source { drive, file: *file, offset: if at == 39 { 16384 } else { offset } })
            .collect();
        let answers = crate::drive::read_each(&sources, bytes, 5_000_000_000);
        for (at, answer) in answers.iter().take(39).enumerate() {
            assert!(matches!(answer, Some(Ok(read)) if *read == vec![at as u8 + 1; bytes]), "{at}: {answer:?}");
        }
        assert!(matches!(&answers[39], Some(Err(error)) if error.kind() == ErrorKind::UnexpectedEof));
    }
}
