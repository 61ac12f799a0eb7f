use super::super::acl;
use super::*;
use crate::api::{XATTR_CREATE, XATTR_REPLACE};

/// (tag, permissions, id)
fn acl_of(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

const NO_ID: u32 = u32::MAX;

fn full(user: u16, named: u16, group: u16, mask: u16, other: u16) -> Vec<u8> {
    acl_of(&[(1, user, NO_ID), (2, named, 500), (4, group, NO_ID), (16, mask, NO_ID), (32, other, NO_ID)])
}

fn minimal(user: u16, group: u16, other: u16) -> Vec<u8> {
    acl_of(&[(1, user, NO_ID), (4, group, NO_ID), (32, other, NO_ID)])
}

impl Bench {
    fn set(&self, ino: Ino, name: &[u8], value: &[u8]) -> FsResult<()> {
        self.volume.setxattr(&ROOT, ino, name, value, 0, false)
    }
}

#[test]
fn an_access_acl_and_the_mode_say_the_same() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.set(file, acl::ACCESS, &full(6, 7, 4, 5, 0)).expect("sets");
    assert_eq!(bench.attr(file).mode & 0o7777, 0o650);
    assert_eq!(bench.volume.getxattr(file, acl::ACCESS).expect("is kept"), full(6, 7, 4, 5, 0));
    let set = SetAttr { mode: Some(0o731), ..SetAttr::default() };
    bench.volume.setattr(&ROOT, file, &set).expect("chmod");
    assert_eq!(bench.volume.getxattr(file, acl::ACCESS).expect("is kept"), full(7, 7, 4, 3, 1));
    bench.set(file, acl::ACCESS, &minimal(6, 4, 4)).expect("sets");
    assert_eq!(bench.attr(file).mode & 0o7777, 0o644);
    fails(bench.volume.getxattr(file, acl::ACCESS), FsError::NoData);
    bench.volume.removexattr(&ROOT, file, acl::ACCESS).expect("nothing to remove is no error");
}

#[test]
fn setting_an_acl_clears_sgid_when_told() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let set = SetAttr { mode: Some(0o2755), ..SetAttr::default() };
    bench.volume.setattr(&ROOT, file, &set).expect("chmod");
    bench.volume.setxattr(&ROOT, file, acl::ACCESS, &minimal(7, 5, 5), 0, false).expect("sets");
    assert_eq!(bench.attr(file).mode & 0o7777, 0o2755);
    bench.volume.setxattr(&ROOT, file, acl::ACCESS, &minimal(7, 5, 5), 0, true).expect("sets");
    assert_eq!(bench.attr(file).mode & 0o7777, 0o755);
}

#[test]
fn what_is_no_acl_is_refused() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let bad = [
        acl_of(&[]),
        acl_of(&[(1, 7, NO_ID), (4, 7, NO_ID)]),
        acl_of(&[(4, 7, NO_ID), (1, 7, NO_ID), (32, 7, NO_ID)]),
        acl_of(&[(1, 7, NO_ID), (2, 7, 5), (4, 7, NO_ID), (32, 7, NO_ID)]),
        acl_of(&[(1, 7, NO_ID), (2, 7, NO_ID), (4, 7, NO_ID), (16, 7, NO_ID), (32, 7, NO_ID)]),
        acl_of(&[(1, 7, NO_ID), (1, 7, NO_ID), (4, 7, NO_ID), (32, 7, NO_ID)]),
        minimal(8, 7, 7),
        minimal(7, 7, 7)[..20].to_vec(),
        vec![2, 0],
    ];
    for value in bad {
        fails(bench.set(file, acl::ACCESS, &value), FsError::Invalid);
    }
    fails(bench.set(file, acl::ACCESS, &[1, 0, 0, 0]), FsError::NotSupported);
    fails(bench.set(file, acl::DEFAULT, &minimal(7, 7, 7)), FsError::Access);
}

#[test]
fn a_default_acl_is_inherited_instead_of_the_umask() {
    let bench = bench();
    let dir = bench.dir(ROOT_INO, "d");
    bench.set(dir, acl::DEFAULT, &full(7, 7, 5, 7, 5)).expect("sets");
    let caller = Caller { umask: 0o077, ..USER };
    let file = bench.volume.create(&caller, dir, b"f", 0o664).expect("creates");
    assert_eq!(file.mode & 0o7777, 0o664);
    assert_eq!(bench.volume.getxattr(file.ino, acl::ACCESS).expect("inherits"), full(6, 7, 5, 6, 4));
    fails(bench.volume.getxattr(file.ino, acl::DEFAULT), FsError::NoData);
    let sub = bench.volume.mkdir(&caller, dir, b"s", 0o700).expect("makes");
    assert_eq!(sub.mode & 0o7777, 0o700);
    assert_eq!(bench.volume.getxattr(sub.ino, acl::DEFAULT).expect("inherits"), full(7, 7, 5, 7, 5));
    let nameless = bench.volume.tmpfile(&caller, dir, 0o666).expect("makes");
    assert_eq!(nameless.mode & 0o7777, 0o664);
    bench.set(dir, acl::DEFAULT, &minimal(7, 5, 0)).expect("sets");
    let plain = bench.volume.create(&caller, dir, b"p", 0o666).expect("creates");
    assert_eq!(plain.mode & 0o7777, 0o640);
    fails(bench.volume.getxattr(plain.ino, acl::ACCESS), FsError::NoData);
    bench.volume.removexattr(&ROOT, dir, acl::DEFAULT).expect("removes");
    let masked = bench.volume.create(&caller, dir, b"m", 0o666).expect("creates");
    assert_eq!(masked.mode & 0o7777, 0o600);
    let link = bench.volume.symlink(&caller, dir, b"l", b"t").expect("links");
    assert_eq!(link.mode & 0o7777, 0o777);
    bench.check();
}

#[test]
fn attributes_obey_flags_and_limits() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let set =
        |name: &[u8], value: &[u8], flags| bench.volume.setxattr(&ROOT, file, name, value, flags, false);
    fails(bench.volume.getxattr(file, b"user.a"), FsError::NoData);
    fails(set(b"user.a", b"1", XATTR_REPLACE), FsError::NoData);
    set(b"user.a", b"1", XATTR_CREATE).expect("creates");
    fails(set(b"user.a", b"2", XATTR_CREATE), FsError::Exists);
    set(b"user.a", b"", XATTR_REPLACE).expect("replaces");
    assert_eq!(bench.volume.getxattr(file, b"user.a").expect("is there"), b"");
    fails(set(b"user.a", b"1", 3), FsError::Invalid);
    set(b"user.big", &vec![1; 65_535], 0).expect("the largest value");
    fails(set(b"user.big", &vec![1; 65_536], 0), FsError::TooBig);
    fails(set(b"system.other", b"1", 0), FsError::NotSupported);
    fails(set(b"nothing", b"1", 0), FsError::NotSupported);
    fails(set(b"user.", b"1", 0), FsError::Invalid);
    fails(set(&[b"user.".to_vec(), vec![b'n'; 251]].concat(), b"1", 0), FsError::Range);
    set(b"trusted.t", b"1", 0).expect("sets");
    set(b"security.s", b"1", 0).expect("sets");
    assert_eq!(bench.volume.listxattr(file).expect("lists"), b"security.s\0trusted.t\0user.a\0user.big\0");
    bench.volume.removexattr(&ROOT, file, b"user.a").expect("removes");
    fails(bench.volume.removexattr(&ROOT, file, b"user.a"), FsError::NoData);
    let bytes = (0..).take_while(|index| {
        let name = format!("user.{index:0>240}");
        match set(name.as_bytes(), b"", 0) {
            Err(FsError::NoSpace) => false,
            result => {
                result.expect("sets");
                true
            }
        }
    });
    assert!((200..300).contains(&bytes.count()));
    assert!(bench.volume.listxattr(file).expect("lists").len() <= 65_536);
}

#[test]
fn a_write_removes_capabilities_and_nothing_else() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.set(file, b"security.capability", b"all").expect("sets");
    bench.set(file, b"user.a", b"1").expect("sets");
    bench.write(file, 0, b"x");
    assert_eq!(bench.volume.listxattr(file).expect("lists"), b"user.a\0");
    bench.set(file, b"security.capability", b"all").expect("sets");
    bench.truncate(file, 0);
    assert_eq!(bench.volume.listxattr(file).expect("lists"), b"user.a\0");
}
