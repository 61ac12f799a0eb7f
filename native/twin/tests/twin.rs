//! The twin test tested: equal directories show no difference, a damaged one does.

use holdfast_twin::compare::{Counts, Ground, ctime_is_fine};
use holdfast_twin::op::Path;
use holdfast_twin::side::Break;

/// Two fresh directories below the build's own, so that both lie on one file system that has xattrs.
fn ground(name: &str, damage: Option<Break>) -> Ground {
    let base =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let [a, b] = ["a", "b"].map(|side| {
        let directory = base.join(side);
        std::fs::create_dir_all(&directory).expect("a directory to test in");
        Path(directory.into_os_string().into_encoded_bytes())
    });
    let fine_ctime = ctime_is_fine(&a).expect("ctime of a") && ctime_is_fine(&b).expect("ctime of b");
    Ground { a, b, fine_ctime, damage, before_compare: None, skip: Vec::new() }
}

#[test]
fn equal_directories_show_no_difference() {
    let ground = ground("equal", None);
    let mut counts = Counts::new();
    for seed in 0..10 {
        let found = ground.run_seed(seed, 1000, &mut counts).expect("the test runs");
        assert!(found.is_none(), "seed {seed}: {}", found.map(|found| found.text).unwrap_or_default());
    }
    // An op that never succeeds tests nothing.
    for kind in [
        "Open",
        "TemporaryFile",
        "LinkSlot",
        "Write",
        "WriteAt",
        "WriteVector",
        "Read",
        "ReadAt",
        "Seek",
        "DirectWrite",
        "DirectRead",
        "Map",
        "Truncate",
        "TruncateSlot",
        "Allocate",
        "CopyRange",
        "Rename",
        "Link",
        "Symlink",
        "Unlink",
        "MakeDirectory",
        "RemoveDirectory",
        "ChangeMode",
        "SetTimes",
        "SetXattr",
        "GetXattr",
        "RemoveXattr",
        "List",
        "Burst",
        "Sweep",
        "Digest",
    ] {
        assert!(counts.contains_key(&(kind.to_owned(), 0)), "{kind} never succeeded");
    }
}

#[test]
fn one_flipped_byte_is_found_and_so_is_a_lost_mode_bit() {
    for (name, damage) in [("flip", Break::FlipWrittenByte { from_op: 500 }), ("mode", Break::LoseModeBits)] {
        let ground = ground(name, Some(damage));
        let found: Vec<bool> = (0..5)
            .map(|seed| ground.run_seed(seed, 1000, &mut Counts::new()).expect("the test runs").is_some())
            .collect();
        assert!(found.iter().filter(|found| **found).count() >= 4, "{name}: {found:?}");
    }
}

#[test]
fn a_difference_names_a_prefix_that_shows_it_again() {
    let ground = ground("prefix", Some(Break::LoseModeBits));
    let found = ground.run_seed(3, 1000, &mut Counts::new()).expect("the test runs").expect("a difference");
    assert!(found.count < 1000);
    let again = ground.run_seed(3, found.count, &mut Counts::new()).expect("the test runs");
    assert_eq!(again.expect("the same difference").text, found.text);
    assert!(ground.run_seed(3, found.count - 1, &mut Counts::new()).expect("the test runs").is_none());
}
