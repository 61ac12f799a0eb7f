//! What deleting snapshots is said to give back, against what it does: pages that tables name, counted before and after.

use super::rig::Rig;
use holdfast_device::Rng;
use holdfast_format::Lsn;
use holdfast_format::cell::{Cell, level_blocks};
use holdfast_format::key;
use holdfast_store::group::Group;
use std::collections::BTreeSet;
use std::sync::Arc;

const BLOCK: u64 = 4096;

/// Pages that any table of the pool names.
fn named(rig: &Rig) -> BTreeSet<(u64, u16)> {
    let mut pages = BTreeSet::new();
    for group in rig.engine.groups() {
        let note = &mut |version: holdfast_store::metadata::io::Version| {
            let level = key::data_place(&version.key).map_or(0, |(_, level)| level);
            let cell = version.value.as_ref().map(|value| Cell::decode(level, value).expect("a cell"));
            match cell {
                Some(Cell::Pages { egroup, first_page, released, .. }) => {
                    let is_there = |block: &u16| released.get(*block as usize / 8).is_none_or(|byte| byte >> (block % 8) & 1 == 0);
                    pages.extend((0..level_blocks(level) as u16).filter(is_there).map(|block| (egroup.0, first_page + block)));
                }
                Some(Cell::Packed { egroup, page, .. }) => drop(pages.insert((egroup.0, page))),
                _ => {}
            }
            Ok(())
        };
        group.tree().each_data_record(note).expect("readable");
    }
    pages
}

/// Everything that is known to be dead is given back, and nothing hides anything above the deepest level.
fn settle(group: &Group) {
    while group.compact_for_space().expect("merged") {}
    group.loosen_everything();
    while group.expire_step().expect("expired") || group.loosen_step().expect("looked") {}
}

/// Deletes some snapshots of a group, none of which is held; true when there was something to give back.
pub fn check(rig: &Rig, target: &str, group: &Arc<Group>, names: &[(u64, String)], rng: &mut Rng) -> bool {
    group.drain_now().expect("drained");
    let going: Vec<Lsn> = names.iter().map(|(lsn, _)| Lsn(*lsn)).collect();
    let at_first = group.would_free(&going).expect("told");
    settle(group);
    let said = group.would_free(&going).expect("told");
    assert!(at_first.bytes <= said.bytes, "{at_first:?} before the levels met, {said:?} after");
    let words: Vec<String> = names.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(rig.engine.would_free(target, &words, u64::MAX).expect("told"), said);

    let spaces = group.space_of(&going).expect("told");
    for (lsn, space) in going.iter().zip(&spaces) {
        let alone = group.would_free(&[*lsn]).expect("told");
        assert_eq!((space.unique, space.unique_lasting), (alone.bytes, alone.bytes + alone.bytes_later), "LSN {lsn}");
        assert!(space.unique_lasting <= space.seen);
        assert_eq!(group.space_of_lasting().expect("told").get(lsn), Some(space));
    }
    assert!(spaces.iter().map(|space| space.unique).sum::<u64>() <= said.bytes);

    let before = named(rig);
    for name in &words {
        rig.engine.snapshot_delete(target, name).expect("deleted");
        // The order in which they are given back must not matter.
        while rng.chance(1, 2) && group.loosen_step().expect("looked") {}
    }
    group.flush_now().expect("durable");
    while group.loosen_step().expect("looked") {}
    let after = named(rig);
    assert_eq!((before.len() - after.len()) as u64 * BLOCK, said.bytes, "of {words:?}: {spaces:?}, {said:?}");
    assert_eq!(group.would_free(&[]).expect("told").bytes, 0);
    said.bytes > 0
}
