//! What the engine tells of two points, against all that can be seen of them.

use super::rig::ROOT;
use super::rig::tree::{Entry, Tree, walk};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::FileSystem;
use holdfast_store::engine::{ChangeKind, Engine, FileChange};
use holdfast_store::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Small, so that pages are many.
const PAGE: usize = 3;

type Name = (Ino, Vec<u8>, Ino);

fn names(tree: &Tree) -> BTreeSet<Name> {
    tree.entries.iter().map(|entry| (entry.dir, entry.name.clone(), entry.ino)).collect()
}

/// Paths of directories.
fn directories(tree: &Tree) -> BTreeMap<Ino, Vec<u8>> {
    let mut paths = BTreeMap::from([(ROOT_INO, Vec::new())]);
    // A walk meets a directory before what is in it.
    for entry in tree.entries.iter().filter(|entry| entry.is_directory()) {
        let path = path(&paths, entry);
        paths.insert(entry.ino, path);
    }
    paths
}

fn path(directories: &BTreeMap<Ino, Vec<u8>>, entry: &Entry) -> Vec<u8> {
    let mut path = directories[&entry.dir].clone();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(&entry.name);
    path
}

fn all(engine: &Engine, volume: &str, words: &[String; 2]) -> Vec<FileChange> {
    let (mut changes, mut first) = (Vec::new(), 0);
    loop {
        let told = engine.difference(volume, &words[0], Some(&words[1]), first, PAGE).expect("both are kept");
        changes.extend(told.page.changes);
        match told.page.next {
            Some(next) => first = next.0,
            None => return changes,
        }
    }
}

/// Returns how many changes were told.
pub fn check(engine: &Engine, volume: &str, words: &[String; 2], sides: &[Arc<Volume>; 2]) -> u64 {
    let told = all(engine, volume, words);
    let trees = [&sides[0], &sides[1]].map(|side| walk(side).expect("readable"));
    let [before, after] = [&trees[0], &trees[1]].map(names);
    let paths = [&trees[0], &trees[1]].map(directories);
    let what = format!("{volume} from {} to {}: {told:#?}", words[0], words[1]);
    let of_kind = |kinds: &[ChangeKind]| -> Vec<&FileChange> { told.iter().filter(|change| kinds.contains(&change.kind)).collect() };

    // Every name that came is told once, every one that went once.
    let came = |tree: &Tree, paths: &BTreeMap<Ino, Vec<u8>>, others: &BTreeSet<Name>| -> BTreeSet<(Vec<u8>, Ino)> {
        let fresh = tree.entries.iter().filter(|entry| !others.contains(&(entry.dir, entry.name.clone(), entry.ino)));
        fresh.map(|entry| (path(paths, entry), entry.ino)).collect()
    };
    let gained = came(&trees[1], &paths[1], &before);
    let lost = came(&trees[0], &paths[0], &after);
    let new_names: Vec<_> = of_kind(&[ChangeKind::Added, ChangeKind::Renamed]).iter().map(|change| (change.path.clone(), change.ino)).collect();
    assert_eq!(new_names.len(), gained.len(), "{what}\ngained {gained:?}");
    assert_eq!(new_names.into_iter().collect::<BTreeSet<_>>(), gained, "{what}");
    let removed = of_kind(&[ChangeKind::Removed]).into_iter().map(|change| (change.path.clone(), change.ino));
    let renamed = of_kind(&[ChangeKind::Renamed]).into_iter().map(|change| (change.old_path.clone().expect("a renamed one was elsewhere"), change.ino));
    let old_names: Vec<_> = removed.chain(renamed).collect();
    assert_eq!(old_names.len(), lost.len(), "{what}\nlost {lost:?}");
    assert_eq!(old_names.into_iter().collect::<BTreeSet<_>>(), lost, "{what}");

    // Whatever is on both sides and is told to be the same is the same.
    let mentioned: BTreeSet<Ino> = told.iter().map(|change| change.ino).collect();
    for entry in trees[1].entries.iter().filter(|entry| entry.is_file() && !mentioned.contains(&entry.ino)) {
        let was = trees[0].inodes.get(&entry.ino).unwrap_or_else(|| panic!("inode {} is not told: {what}", entry.ino));
        assert_eq!(content_of(was), content_of(&trees[1].inodes[&entry.ino]), "inode {}: {what}", entry.ino);
    }
    for change in of_kind(&[ChangeKind::Changed, ChangeKind::Attributes]) {
        assert!(trees[0].inodes.get(&change.ino) != trees[1].inodes.get(&change.ino) || change.ino == ROOT_INO, "{change:?}: {what}");
    }

    // Outside of the ranges nothing differs.
    for change in told.iter().filter(|change| change.file_type == 8 && change.kind != ChangeKind::Removed) {
        let [was, is] = [&sides[0], &sides[1]].map(|side| content(side, change.ino));
        for at in (0..is.len()).step_by(512) {
            let within = change.ranges.iter().any(|(start, length)| *start <= at as u64 && (at as u64) < start + length);
            let old = was.get(at).copied().unwrap_or(0);
            assert!(within || old == is[at], "byte {at} of {change:?}: {what}");
        }
    }
    told.len() as u64
}

/// The part of an inode's text that tells of its content: size, blocks and checksum.
fn content_of(text: &str) -> (Option<&str>, Option<&str>) {
    let size = text.split(' ').find(|word| word.starts_with('s') && word[1..].bytes().all(|byte| byte.is_ascii_digit()));
    let sum = text.split_whitespace().find(|word| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (size, sum)
}

fn content(volume: &Volume, ino: Ino) -> Vec<u8> {
    let Ok(attr) = volume.getattr(ino) else { return Vec::new() };
    let mut bytes = vec![0; attr.size as usize];
    let got = volume.read(&ROOT, ino, 0, &mut bytes).expect("readable");
    bytes.truncate(got);
    bytes
}
