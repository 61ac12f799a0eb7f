use super::*;
use crate::api::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
use holdfast_format::limits::NLINK_MAX;
use holdfast_format::op::OpKind;

#[test]
fn names_have_1_to_255_bytes_in_every_operation() {
    let bench = bench();
    let volume = &bench.volume;
    let long = vec![b'x'; 256];
    let most = vec![b'x'; 255];
    let file = volume.create(&ROOT, ROOT_INO, &most, 0o600).expect("255 bytes are a name").ino;
    volume.lookup(ROOT_INO, &most).expect("is found");
    fails(volume.lookup(ROOT_INO, &long), FsError::NameTooLong);
    fails(volume.create(&ROOT, ROOT_INO, &long, 0o600), FsError::NameTooLong);
    fails(volume.mknod(&ROOT, ROOT_INO, &long, mode::FIFO, 0), FsError::NameTooLong);
    fails(volume.mkdir(&ROOT, ROOT_INO, &long, 0o700), FsError::NameTooLong);
    fails(volume.symlink(&ROOT, ROOT_INO, &long, b"t"), FsError::NameTooLong);
    fails(volume.link(&ROOT, file, ROOT_INO, &long), FsError::NameTooLong);
    fails(volume.unlink(&ROOT, ROOT_INO, &long), FsError::NameTooLong);
    fails(volume.rmdir(&ROOT, ROOT_INO, &long), FsError::NameTooLong);
    fails(volume.rename(&ROOT, (ROOT_INO, &most), (ROOT_INO, &long), 0), FsError::NameTooLong);
    fails(volume.rename(&ROOT, (ROOT_INO, &long), (ROOT_INO, &most), 0), FsError::NameTooLong);
    for bad in [&b""[..], b"a/b", b"a\0b"] {
        fails(volume.create(&ROOT, ROOT_INO, bad, 0o600), FsError::Invalid);
    }
    fails(volume.mkdir(&ROOT, ROOT_INO, b"..", 0o700), FsError::Exists);
    fails(volume.rmdir(&ROOT, ROOT_INO, b"."), FsError::Invalid);
}

#[test]
fn what_is_no_directory_has_no_names() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    fails(bench.volume.lookup(file, b"x"), FsError::NotDirectory);
    fails(bench.volume.create(&ROOT, file, b"x", 0o600), FsError::NotDirectory);
    fails(bench.volume.unlink(&ROOT, file, b"x"), FsError::NotDirectory);
    fails(bench.volume.rename(&ROOT, (file, b"x"), (ROOT_INO, b"y"), 0), FsError::NotDirectory);
    fails(bench.volume.rename(&ROOT, (ROOT_INO, b"f"), (file, b"y"), 0), FsError::NotDirectory);
    fails(bench.volume.readdir(&ROOT, file, 0, false, &mut |_| true), FsError::NotDirectory);
    fails(bench.volume.getattr(Ino(99)), FsError::Stale);
}

#[test]
fn a_small_file_is_two_ops_and_a_rename_is_one() {
    let bench = bench();
    bench.file(ROOT_INO, "first");
    let before = bench.op_count();
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, b"hello");
    bench.file(ROOT_INO, "g");
    bench.volume.rename(&ROOT, (ROOT_INO, b"f"), (ROOT_INO, b"g"), 0).expect("replaces");
    assert_eq!(bench.new_ops(before), [OpKind::Create, OpKind::Write, OpKind::Create, OpKind::Rename]);
    assert_eq!(bench.read(bench.volume.lookup(ROOT_INO, b"g").expect("is there").ino), b"hello");
    bench.check();
}

#[test]
fn special_files_keep_type_and_device() {
    let bench = bench();
    for (name, kind, rdev) in [
        ("c", mode::CHARACTER_DEVICE, 0x103),
        ("b", mode::BLOCK_DEVICE, 0x800),
        ("p", mode::FIFO, 0),
        ("s", mode::SOCKET, 0),
        ("r", mode::REGULAR, 0),
    ] {
        let attr = bench.volume.mknod(&ROOT, ROOT_INO, name.as_bytes(), kind | 0o666, rdev).expect("makes");
        assert_eq!((attr.mode, attr.rdev), (kind | 0o644, rdev));
    }
    fails(bench.volume.mknod(&ROOT, ROOT_INO, b"l", mode::SYMLINK | 0o777, 0), FsError::Invalid);
    let pipe = bench.volume.lookup(ROOT_INO, b"p").expect("is there").ino;
    fails(bench.volume.read(&ROOT, pipe, 0, &mut [0; 4]), FsError::Invalid);
}

#[test]
fn symlinks_hold_up_to_4095_bytes() {
    let bench = bench();
    let target = vec![b't'; 4095];
    let attr = bench.volume.symlink(&ROOT, ROOT_INO, b"l", &target).expect("links");
    assert_eq!((attr.size, attr.mode), (4095, mode::SYMLINK | 0o777));
    assert_eq!(bench.volume.readlink(attr.ino).expect("reads"), target);
    fails(bench.volume.symlink(&ROOT, ROOT_INO, b"m", &vec![b't'; 4096]), FsError::NameTooLong);
    fails(bench.volume.symlink(&ROOT, ROOT_INO, b"m", b""), FsError::NotFound);
    fails(bench.volume.readlink(ROOT_INO), FsError::Invalid);
}

#[test]
fn the_setgid_bit_of_a_directory_is_passed_on() {
    let bench = bench();
    let dir = bench.dir(ROOT_INO, "d");
    let set = SetAttr { mode: Some(0o2775), gid: Some(50), ..SetAttr::default() };
    bench.volume.setattr(&ROOT, dir, &set).expect("sets");
    let file = bench.volume.create(&USER, dir, b"f", 0o666).expect("creates");
    assert_eq!((file.uid, file.gid, file.mode & 0o7777), (1000, 50, 0o644));
    let sub = bench.volume.mkdir(&USER, dir, b"s", 0o777).expect("makes");
    assert_eq!((sub.gid, sub.mode & 0o7777), (50, 0o2755));
    let own = bench.volume.create(&USER, ROOT_INO, b"f", 0o666).expect("creates");
    assert_eq!(own.gid, 100);
}

#[test]
fn links_are_limited_and_never_of_directories() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let dir = bench.dir(ROOT_INO, "d");
    fails(bench.volume.link(&ROOT, dir, ROOT_INO, b"x"), FsError::Permission);
    fails(bench.volume.link(&ROOT, file, ROOT_INO, b"d"), FsError::Exists);
    let mut record = bench.inode(file);
    record.nlink = NLINK_MAX;
    bench.ledger.state.lock().records.insert(key::inode(BRANCH, file), record.encode());
    fails(bench.volume.link(&ROOT, file, ROOT_INO, b"x"), FsError::TooManyLinks);
}

#[test]
fn parent_pointers_follow_every_name() {
    let bench = bench();
    let (a, b) = (bench.dir(ROOT_INO, "a"), bench.dir(ROOT_INO, "b"));
    let file = bench.file(a, "1");
    bench.volume.link(&ROOT, file, b, b"2").expect("links");
    bench.volume.link(&ROOT, file, b, b"3").expect("links");
    bench.check();
    bench.volume.unlink(&ROOT, a, b"1").expect("unlinks the first parent's");
    assert_eq!(bench.inode(file).parent, b);
    bench.check();
    bench.volume.rename(&ROOT, (b, b"2"), (a, b"2"), 0).expect("renames");
    bench.volume.rename(&ROOT, (b, b"3"), (a, b"3"), 0).expect("renames");
    bench.check();
    bench.volume.unlink(&ROOT, a, b"2").expect("unlinks");
    assert_eq!((bench.inode(file).parent, bench.inode(file).flags & INODE_HAS_LINKS), (a, 0));
    bench.check();
}

#[test]
fn an_unlinked_file_lives_while_it_is_referenced() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, &[1; 5000]);
    bench.volume.lookup(ROOT_INO, b"f").expect("a second reference");
    let before = bench.op_count();
    bench.volume.unlink(&ROOT, ROOT_INO, b"f").expect("unlinks");
    assert_eq!(bench.attr(file).nlink, 0);
    assert_eq!(bench.read(file), [1; 5000]);
    bench.volume.forget(file, 1);
    bench.check();
    assert_eq!(bench.read(file), [1; 5000]);
    bench.volume.forget(file, 1);
    fails(bench.volume.getattr(file), FsError::Stale);
    assert_eq!(bench.new_ops(before), [OpKind::Unlink, OpKind::Reap]);
    bench.check();
}

#[test]
fn an_unreferenced_file_goes_in_one_op() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.volume.setxattr(&ROOT, file, b"user.a", b"1", 0, false).expect("sets");
    bench.volume.forget(file, 1);
    let before = bench.op_count();
    bench.volume.unlink(&ROOT, ROOT_INO, b"f").expect("unlinks");
    assert_eq!(bench.new_ops(before), [OpKind::Unlink]);
    bench.check();
}

#[test]
fn orphans_of_a_crash_are_reaped_at_the_next_opening() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, &[1; 5000]);
    for index in 0..600 {
        let name = format!("user.{index}-{}", "n".repeat(90));
        bench.volume.setxattr(&ROOT, file, name.as_bytes(), b"1", 0, false).expect("sets");
    }
    let nameless = bench.volume.tmpfile(&ROOT, ROOT_INO, 0o600).expect("makes").ino;
    bench.volume.unlink(&ROOT, ROOT_INO, b"f").expect("unlinks");
    let again = Volume::open(bench.ledger.clone(), BRANCH, VolumeOptions::default()).expect("opens");
    fails(again.getattr(file), FsError::Stale);
    fails(again.getattr(nameless), FsError::Stale);
    let bench = Bench { volume: again, ..bench };
    bench.check();
    let last = bench.file(ROOT_INO, "new");
    assert!(last > nameless, "numbers are never given twice");
}

#[test]
fn many_attributes_do_not_keep_an_unreferenced_file() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    for index in 0..300 {
        bench
            .volume
            .setxattr(&ROOT, file, format!("user.{index}").as_bytes(), b"1", 0, false)
            .expect("sets");
    }
    bench.volume.forget(file, 1);
    bench.volume.unlink(&ROOT, ROOT_INO, b"f").expect("unlinks");
    fails(bench.volume.getattr(file), FsError::Stale);
    bench.check();
}

#[test]
fn a_nameless_file_can_get_a_name() {
    let bench = bench();
    let file = bench.volume.tmpfile(&USER, ROOT_INO, 0o666).expect("makes");
    assert_eq!((file.nlink, file.mode), (0, mode::REGULAR | 0o644));
    assert_eq!(bench.volume.link(&USER, file.ino, ROOT_INO, b"f").expect("links").nlink, 1);
    bench.check();
    bench.volume.forget(file.ino, 2);
    assert_eq!(bench.attr(file.ino).nlink, 1);
    bench.volume.release().expect("releases");
    assert_eq!(bench.attr(file.ino).nlink, 1);
}

#[test]
fn release_reaps_what_only_the_kernel_held() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.volume.unlink(&ROOT, ROOT_INO, b"f").expect("unlinks");
    bench.volume.release().expect("releases");
    fails(bench.volume.getattr(file), FsError::Stale);
    bench.check();
}

#[test]
fn directories_count_their_subdirectories() {
    let bench = bench();
    let a = bench.dir(ROOT_INO, "a");
    let b = bench.dir(ROOT_INO, "b");
    let sub = bench.dir(a, "sub");
    assert_eq!([ROOT_INO, a, b, sub].map(|dir| bench.attr(dir).nlink), [4, 3, 2, 2]);
    bench.volume.rename(&ROOT, (a, b"sub"), (b, b"sub"), 0).expect("moves");
    assert_eq!([ROOT_INO, a, b, sub].map(|dir| bench.attr(dir).nlink), [4, 2, 3, 2]);
    assert_eq!(bench.volume.lookup(sub, b"..").expect("has a parent").ino, b);
    fails(bench.volume.rmdir(&ROOT, ROOT_INO, b"b"), FsError::NotEmpty);
    fails(bench.volume.rename(&ROOT, (ROOT_INO, b"a"), (ROOT_INO, b"b"), 0), FsError::NotEmpty);
    fails(bench.volume.rename(&ROOT, (ROOT_INO, b"b"), (sub, b"x"), 0), FsError::Invalid);
    bench.volume.rmdir(&ROOT, b, b"sub").expect("removes");
    fails(bench.volume.create(&ROOT, sub, b"x", 0o600), FsError::NotFound);
    bench.volume.rename(&ROOT, (ROOT_INO, b"a"), (ROOT_INO, b"b"), 0).expect("replaces an empty directory");
    assert_eq!(bench.attr(ROOT_INO).nlink, 3);
    bench.check();
}

#[test]
fn rename_obeys_its_flags() {
    let bench = bench();
    let volume = &bench.volume;
    let (f, g) = (bench.file(ROOT_INO, "f"), bench.file(ROOT_INO, "g"));
    let both = |from: &'static [u8], to: &'static [u8]| ((ROOT_INO, from), (ROOT_INO, to));
    let run = |(from, to), flags| volume.rename(&ROOT, from, to, flags);
    fails(run(both(b"f", b"g"), RENAME_NOREPLACE), FsError::Exists);
    fails(run(both(b"f", b"h"), RENAME_EXCHANGE), FsError::NotFound);
    fails(run(both(b"f", b"h"), RENAME_EXCHANGE | RENAME_NOREPLACE), FsError::Invalid);
    fails(run(both(b"f", b"h"), 8), FsError::Invalid);
    run(both(b"f", b"g"), RENAME_EXCHANGE).expect("exchanges");
    assert_eq!(volume.lookup(ROOT_INO, b"f").expect("is there").ino, g);
    run(both(b"f", b"h"), RENAME_WHITEOUT).expect("leaves a whiteout");
    let whiteout = volume.lookup(ROOT_INO, b"f").expect("is there");
    assert_eq!((whiteout.mode & mode::TYPE_MASK, whiteout.rdev), (mode::CHARACTER_DEVICE, 0));
    volume.link(&ROOT, f, ROOT_INO, b"same").expect("links");
    run(both(b"g", b"same"), 0).expect("two names of one file: nothing happens");
    assert_eq!(bench.attr(f).nlink, 2);
    bench.check();
}

/// Two names with equal 48-bit hashes, found by trying 2^25.
const TWINS: [&[u8]; 2] = [b"aaaxkyat", b"aabsjhsh"];

#[test]
fn names_of_equal_hash_keep_their_own_cookies() {
    let bench = bench();
    let base = key::cookie_base(TWINS[0]);
    assert_eq!(base, key::cookie_base(TWINS[1]));
    let make = |name: &[u8]| bench.volume.create(&ROOT, ROOT_INO, name, 0o600).expect("creates").ino;
    let cookies =
        || bench.names(ROOT_INO).into_iter().skip(2).map(|entry| (entry.0, entry.1)).collect::<Vec<_>>();
    let first = make(TWINS[0]);
    let second = make(TWINS[1]);
    assert_eq!(cookies(), [(base, TWINS[0].to_vec()), (base + 1, TWINS[1].to_vec())]);
    fails(bench.volume.create(&ROOT, ROOT_INO, TWINS[1], 0o600), FsError::Exists);
    assert_eq!(bench.volume.lookup(ROOT_INO, TWINS[1]).expect("is there").ino, second);
    bench.volume.unlink(&ROOT, ROOT_INO, TWINS[0]).expect("unlinks");
    assert_eq!(cookies(), [(base + 1, TWINS[1].to_vec())]);
    fails(bench.volume.lookup(ROOT_INO, TWINS[0]), FsError::NotFound);
    assert_ne!(make(TWINS[0]), first);
    assert_eq!(cookies(), [(base, TWINS[0].to_vec()), (base + 1, TWINS[1].to_vec())]);
    bench.volume.rename(&ROOT, (ROOT_INO, TWINS[0]), (ROOT_INO, TWINS[1]), 0).expect("replaces");
    assert_eq!(cookies(), [(base + 1, TWINS[1].to_vec())]);
    bench.check();
}

#[test]
fn a_listing_goes_on_where_it_stopped_whatever_happens_meanwhile() {
    let bench = bench();
    let names: Vec<String> = (0..1000).map(|index| format!("file-{index}")).collect();
    for name in &names {
        bench.file(ROOT_INO, name);
    }
    let mut seen = BTreeSet::new();
    let (mut cookie, mut round) = (0, 0);
    loop {
        let (mut taken, from) = (0, cookie);
        let visit = &mut |entry: &crate::api::DirEntry<'_>| {
            if taken == 7 {
                return false;
            }
            taken += 1;
            cookie = entry.cookie;
            assert!(seen.insert(entry.name.to_vec()), "listed twice");
            true
        };
        bench.volume.readdir(&ROOT, ROOT_INO, from, false, visit).expect("lists");
        if taken < 7 {
            break;
        }
        // One name goes that was listed, one comes: neither may move the others.
        let gone = seen.iter().find(|name| name.starts_with(b"file-")).cloned().expect("some were listed");
        if bench.volume.lookup(ROOT_INO, &gone).is_ok() {
            bench.volume.unlink(&ROOT, ROOT_INO, &gone).expect("unlinks");
        }
        bench.file(ROOT_INO, &format!("new-{round}"));
        round += 1;
    }
    assert!(names.iter().all(|name| seen.contains(name.as_bytes())));
    assert!(seen.contains(&b"."[..]) && seen.contains(&b".."[..]));
}

#[test]
fn a_listing_with_attributes_counts_what_was_taken() {
    let bench = bench();
    let (f, g) = (bench.file(ROOT_INO, "f"), bench.file(ROOT_INO, "g"));
    [f, g].iter().for_each(|ino| bench.volume.forget(*ino, 1));
    let mut taken = Vec::new();
    let visit = &mut |entry: &crate::api::DirEntry<'_>| {
        let is_own = entry.name.starts_with(b".");
        assert_eq!(entry.attr.is_none(), is_own);
        if !is_own && !taken.is_empty() {
            return false;
        }
        taken.extend((!is_own).then_some(entry.ino));
        true
    };
    bench.volume.readdir(&ROOT, ROOT_INO, 0, true, visit).expect("lists");
    let refused = if taken[0] == f { g } else { f };
    for name in [b"f", b"g"] {
        bench.volume.unlink(&ROOT, ROOT_INO, name).expect("unlinks");
    }
    assert_eq!(bench.attr(taken[0]).nlink, 0);
    fails(bench.volume.getattr(refused), FsError::Stale);
    bench.check();
}

#[test]
fn threads_do_not_lose_each_others_names() {
    let bench = bench();
    let dirs: Vec<Ino> = (0..2).map(|index| bench.dir(ROOT_INO, &format!("d{index}"))).collect();
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (bench, dirs) = (&bench, &dirs);
            scope.spawn(move || {
                for index in 0..400 {
                    let (from, to) = (dirs[index % 2], dirs[(index + thread) % 2]);
                    let name = format!("{thread}-{index}");
                    let file = bench.file(from, &name);
                    bench.write(file, 0, name.as_bytes());
                    let target = format!("shared-{}", index % 5);
                    bench
                        .volume
                        .rename(&ROOT, (from, name.as_bytes()), (to, target.as_bytes()), 0)
                        .expect("moves");
                    bench.volume.forget(file, 1);
                }
            });
        }
    });
    bench.check();
    bench.volume.release().expect("releases");
    bench.check();
    let files = dirs.iter().map(|dir| bench.names(*dir).len() - 2).sum::<usize>();
    assert!((5..=10).contains(&files), "{files}");
}
