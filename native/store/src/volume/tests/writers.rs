//! Who changed an inode last stands in it, after each kind of change.

use super::*;
use crate::api::FALLOC_KEEP_SIZE;
use holdfast_format::inode::{Command, Writer};

fn by(number: u32) -> Caller {
    let writer = Some(Writer { uid: 1000 + number, pid: number, command: Command::new(b"program") });
    Caller { uid: 0, pid: number, umask: 0o022, writer, ..Caller::default() }
}

#[test]
fn every_kind_of_change_notes_who_makes_it() {
    let bench = bench();
    let (dir, file) = (bench.dir(ROOT_INO, "dir"), bench.file(ROOT_INO, "file"));
    let other = bench.file(ROOT_INO, "other");
    bench.write(other, 0, &[1; 8192]);
    let volume = &bench.volume;
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    type Change<'a> = Box<dyn Fn(&Caller) -> FsResult<()> + 'a>;
    let changes: Vec<(Change<'_>, Vec<Ino>)> = vec![
        (Box::new(|by| volume.write(by, file, 0, &[2; 5000], WriteFlags::default())), vec![file]),
        (Box::new(|by| volume.fallocate(by, file, 0, 9000, FALLOC_KEEP_SIZE)), vec![file]),
        (Box::new(|by| volume.setattr(by, file, &size(100)).map(drop)), vec![file]),
        (Box::new(|by| volume.setattr(by, file, &mode).map(drop)), vec![file]),
        (Box::new(|by| volume.setxattr(by, file, b"user.x", b"1", 0, false)), vec![file]),
        (Box::new(|by| volume.removexattr(by, file, b"user.x")), vec![file]),
        (Box::new(|by| volume.copy_file_range(by, (other, 0), (file, 0), 8192).map(drop)), vec![file]),
        (Box::new(|by| volume.create(by, dir, b"made", 0o644).map(drop)), vec![dir]),
        (Box::new(|by| volume.link(by, file, dir, b"link").map(drop)), vec![file, dir]),
        (Box::new(|by| volume.rename(by, (dir, b"link"), (ROOT_INO, b"moved"), 0)), vec![file, dir, ROOT_INO]),
        (Box::new(|by| volume.unlink(by, ROOT_INO, b"moved")), vec![file, ROOT_INO]),
        (Box::new(|by| volume.mkdir(by, dir, b"below", 0o755).map(drop)), vec![dir]),
        (Box::new(|by| volume.rmdir(by, dir, b"below")), vec![dir]),
        (Box::new(|by| volume.symlink(by, dir, b"symlink", b"target").map(drop)), vec![dir]),
    ];
    for (number, (change, changed)) in (1..).zip(&changes) {
        let before = [dir, file, other, ROOT_INO].map(|ino| (ino, bench.inode(ino).writer));
        change(&by(number)).expect("it is allowed");
        for (ino, writer) in before {
            let expected = if changed.contains(&ino) { by(number).writer } else { writer };
            assert_eq!(bench.inode(ino).writer, expected, "inode {ino} after change {number}");
        }
    }
    let made = volume.lookup(dir, b"made").expect("it was made").ino;
    assert_eq!(bench.inode(made).writer.map(|writer| writer.pid), Some(8));
    bench.check();
}

#[test]
fn looking_is_no_change_and_what_nobody_knows_is_not_guessed() {
    let bench = bench_with(&record(), VolumeOptions { noatime: false });
    let file = bench.file(ROOT_INO, "file");
    bench.volume.write(&by(1), file, 0, b"bytes", WriteFlags::default()).expect("writes");
    bench.set_now(1_000_000_000);
    let accessed = bench.attr(file).atime;
    bench.volume.read(&by(2), file, 0, &mut [0; 5]).expect("reads");
    assert_ne!(bench.attr(file).atime, accessed);
    assert_eq!(bench.inode(file).writer, by(1).writer);
    let nobody = Caller { writer: None, ..by(3) };
    bench.volume.write(&nobody, file, 0, b"other", WriteFlags::default()).expect("writes");
    assert_eq!(bench.inode(file).writer, None);
}
