//! A mount of the past: it tells who made the changes of that time, has no door to others, and takes no change.

mod rig;

use holdfast_format::ROOT_INO;
use holdfast_format::inode::{Command, Writer};
use holdfast_store::api::{Caller, FileSystem, FsError, WriteFlags};
use rig::{ROOT, Rig, options, read_all};

fn by(uid: u32, command: &[u8]) -> Caller {
    Caller { uid, gid: uid, writer: Some(Writer { uid, pid: 7, command: Command::new(command) }), ..ROOT }
}

fn told(files: &dyn FileSystem, name: &[u8]) -> String {
    let question = [b".holdfast:who:", name].concat();
    let note = files.lookup(ROOT_INO, &question).expect("it is told");
    assert_eq!(note.mode, 0o120_777);
    let words = String::from_utf8(files.readlink(note.ino).expect("words")).expect("of ours");
    files.forget(note.ino, 1);
    words.split_once(' ').expect("ctime first").1.to_owned()
}

#[test]
fn a_mount_of_the_past_tells_who_made_what_it_shows() {
    let rig = Rig::create(51, 2, options());
    let volume = rig.volume("v", 2);
    let ino = volume.create(&by(0, b"first"), ROOT_INO, b"f", 0o644).expect("created").ino;
    volume.write(&by(0, b"first"), ino, 0, b"one", WriteFlags::default()).expect("written");
    rig.engine.snapshot_create("v", "then", None).expect("a snapshot");
    volume.write(&by(0, b"second"), ino, 0, b"two", WriteFlags::default()).expect("written");
    assert_eq!(rig.engine.timeline_at("v", "never").err().expect("no such time").kind, holdfast_store::error::Kind::Invalid);

    let then = rig.engine.timeline_at("v", "then").expect("kept");
    let files: &dyn FileSystem = then.as_ref();
    assert_eq!(told(files, b"f"), "uid=0 pid=7 command=first");
    assert_eq!(told(files, b"."), "uid=0 pid=7 command=first");
    assert_eq!(read_all(then.present(), ino), b"one");
    for name in [&b".holdfast"[..], b".holdfast:who:none", b".holdfast:who:"] {
        assert!(matches!(files.lookup(ROOT_INO, name), Err(FsError::NotFound)), "{}", String::from_utf8_lossy(name));
    }
    let mut names = Vec::new();
    files.readdir(&ROOT, ROOT_INO, 0, false, &mut |entry| { names.push(entry.name.to_vec()); true }).expect("listed");
    assert_eq!(names, [&b"."[..], b"..", b"f"]);
    for refused in [files.unlink(&ROOT, ROOT_INO, b"f"), files.write(&ROOT, ino, 0, b"no", WriteFlags::default())] {
        refused.expect_err("the past cannot be changed");
    }
    // It keeps its state as long as it is there.
    rig.engine.snapshot_delete("v", "then").expect("deleted");
    rig.second();
    assert_eq!(read_all(then.present(), ino), b"one");
    assert_eq!(told(files, b"f"), "uid=0 pid=7 command=first");
    // The present, beside it, has the newest, and the door.
    drop(volume);
    let now = rig.engine.timeline("v", Default::default()).expect("free");
    assert_eq!(told(now.as_ref(), b"f"), "uid=0 pid=7 command=second");
    assert!(now.lookup(ROOT_INO, b".holdfast").is_ok());
}
