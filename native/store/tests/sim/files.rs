//! Steps that users of a volume make, each checked against the model.

use super::model::Files;
use super::rig::ROOT;
use super::run::Run;
use super::step::StepName as S;
use super::violation::{Check, Verdict, Violation};
use holdfast_device::Rng;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{
    FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FileSystem, FsError, FsResult, SetAttr, WriteFlags,
};
use holdfast_store::volume::Volume;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAMES: u64 = 7;
const FILE_BYTES_MAX: u64 = 160_000;
/// Largest write of one operation on the smallest slots.
const WRITE_BYTES_MAX: u64 = 64 << 10;

/// What a file holds, or why it cannot be read.
pub type Found = BTreeMap<String, Result<Vec<u8>, FsError>>;

pub fn inode(volume: &Volume, name: &str) -> FsResult<Ino> {
    let ino = volume.lookup(ROOT_INO, name.as_bytes())?.ino;
    volume.forget(ino, 1);
    Ok(ino)
}

fn read_range(volume: &Volume, ino: Ino, offset: u64, bytes: usize) -> FsResult<Vec<u8>> {
    let mut into = vec![0; bytes];
    let got = volume.read(&ROOT, ino, offset, &mut into)?;
    into.truncate(got);
    Ok(into)
}

pub fn read_file(volume: &Volume, name: &str) -> FsResult<Vec<u8>> {
    let ino = inode(volume, name)?;
    let size = volume.getattr(ino)?.size;
    read_range(volume, ino, 0, size as usize)
}

/// Everything in a volume.
pub fn read_volume(volume: &Volume) -> FsResult<Found> {
    let mut names = Vec::new();
    volume.readdir(&ROOT, ROOT_INO, 0, false, &mut |entry| {
        if entry.name != b"." && entry.name != b".." {
            names.push(String::from_utf8_lossy(entry.name).into_owned());
        }
        true
    })?;
    Ok(names.into_iter().map(|name| (name.clone(), read_file(volume, &name))).collect())
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset as usize..end].copy_from_slice(bytes);
}

/// Why what was found is not what should be there; `None`: it is.
pub enum Mismatch {
    Wrong(String),
    Unreadable(String),
}

/// `may_fail`: reads may fail, as long as they do not lie.
pub fn compare(volume: &str, found: &Found, expected: &Files, may_fail: bool) -> Option<Mismatch> {
    if let Some(name) = found
        .keys()
        .chain(expected.keys())
        .find(|name| !found.contains_key(*name) || !expected.contains_key(*name))
    {
        return Some(Mismatch::Wrong(format!(
            "{volume}/{name}: there {}, expected {}",
            found.contains_key(name),
            expected.contains_key(name)
        )));
    }
    for (name, content) in expected {
        match &found[name] {
            Ok(bytes) if bytes == content.as_ref() => {}
            Ok(bytes) => {
                let at = bytes.iter().zip(content.iter()).position(|(one, two)| one != two);
                let (have, want) = (bytes.len(), content.len());
                return Some(Mismatch::Wrong(format!(
                    "{volume}/{name}: differs at {at:?}, {have} bytes, expected {want}"
                )));
            }
            Err(_) if may_fail => {}
            Err(error) => return Some(Mismatch::Unreadable(format!("{volume}/{name}: {error:?}"))),
        }
    }
    None
}

impl Run {
    fn content(&mut self, bytes: u64) -> Vec<u8> {
        let mut rng = Rng::from_seed(self.rng.next_u64());
        let mut content: Vec<u8> =
            (0..bytes.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        content.truncate(bytes as usize);
        content
    }

    fn pick(&mut self, files: &Files) -> Option<String> {
        let at = self.rng.below(files.len().max(1) as u64) as usize;
        files.keys().nth(at).cloned()
    }

    /// False: there was nothing to do it on.
    pub fn file_step(&mut self, step: S) -> Verdict<bool> {
        let at = self.rng.below(self.volumes.len() as u64) as usize;
        let Some(name) = self.volumes.keys().nth(at).cloned() else { return Ok(false) };
        let group = self.volumes[&name].group.clone();
        let files = self.models[&group].now.files(&name);
        let file = self.pick(&files);
        let free = format!("f{}", self.rng.below(NAMES));
        match (step, file) {
            (S::ReadAll, _) => self.verify_volume(&name).map(|()| true),
            (S::Fsync, _) => self.fsync(&name),
            (S::Create, _) if files.contains_key(&free) => Ok(false),
            (S::Create, _) => self.create_file(&name, &free),
            (_, None) => Ok(false),
            (S::Read, Some(file)) => self.read_step(&name, &file),
            (S::Rename, Some(file)) => self.rename(&name, &file, &free),
            (S::Copy, Some(file)) => self.copy(&name, &file, &files),
            (_, Some(file)) => self.change_file(step, &name, &file, files[&file].len() as u64),
        }
    }

    /// Makes a change in the volume and in the model.
    fn apply(
        &mut self,
        name: &str,
        what: String,
        act: impl FnOnce(&Volume) -> FsResult<()>,
        change: impl FnOnce(&mut Files),
    ) -> Verdict<bool> {
        self.say(format!("{name}: {what}"));
        let mounted = self.volumes[name].clone();
        let group = self.group(&mounted.group);
        let before = group.newest();
        let result = act(mounted.mounted());
        let next = self.models[&mounted.group].now.with(name, change);
        if self.world.ended().is_some() {
            self.model(&mounted.group).leave_in_flight(next);
            return Ok(true);
        }
        let after = group.newest();
        if result.is_ok() || after > before {
            self.model(&mounted.group).acknowledge(after.0, next);
        }
        // A copy of nothing logs nothing, and an fsync of this volume then waits for nothing of the others.
        if after > before {
            self.changed.insert(name.to_owned(), after.0);
        }
        match result {
            Ok(()) => Ok(true),
            Err(error) => self.excuse_fs(&what, &error, mounted.rf).map(|()| false),
        }
    }

    fn create_file(&mut self, name: &str, file: &str) -> Verdict<bool> {
        let act = |volume: &Volume| {
            let ino = volume.create(&ROOT, ROOT_INO, file.as_bytes(), 0o644)?.ino;
            volume.forget(ino, 1);
            Ok(())
        };
        let change = |files: &mut Files| drop(files.insert(file.to_owned(), Arc::default()));
        self.apply(name, format!("create {file}"), act, change)
    }

    fn change_file(&mut self, step: S, name: &str, file: &str, size: u64) -> Verdict<bool> {
        let somewhere = self.rng.below((size + 20_000).min(FILE_BYTES_MAX));
        let (offset, bytes) = match step {
            S::WriteAligned => (somewhere / 4096 * 4096, 4096 * (1 + self.rng.below(5))),
            S::WritePartial => (somewhere, 1 + self.rng.below(3000)),
            S::WriteLarge => (somewhere / 65_536 * 65_536, 20_000 + self.rng.below(WRITE_BYTES_MAX - 20_000)),
            S::Truncate => (if self.rng.chance(1, 3) { 0 } else { somewhere }, 0),
            _ => (somewhere, 1 + self.rng.below(40_000)),
        };
        let content = if step <= S::WriteLarge { self.content(bytes) } else { Vec::new() };
        let act = |volume: &Volume| match step {
            S::Unlink => volume.unlink(&ROOT, ROOT_INO, file.as_bytes()),
            S::Truncate => {
                let set = SetAttr { size: Some(offset), ..SetAttr::default() };
                volume.setattr(&ROOT, inode(volume, file)?, &set).map(drop)
            }
            S::Punch => {
                let mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
                volume.fallocate(&ROOT, inode(volume, file)?, offset, bytes, mode)
            }
            _ => volume.write(&ROOT, inode(volume, file)?, offset, &content, WriteFlags::default()),
        };
        let change = |files: &mut Files| {
            if step == S::Unlink {
                files.remove(file);
                return;
            }
            let Some(old) = files.get_mut(file).map(Arc::make_mut) else { return };
            match step {
                S::Truncate => old.resize(offset as usize, 0),
                S::Punch => {
                    let end = (offset + bytes).min(old.len() as u64) as usize;
                    if let Some(hole) = old.get_mut(offset as usize..end) {
                        hole.fill(0);
                    }
                }
                _ => put(old, offset, &content),
            }
        };
        self.apply(name, format!("{step:?} {file} at {offset}, {bytes} bytes"), act, change)
    }

    /// A file whose only copy may be gone is deleted: that must work.
    pub fn unlink_lost(&mut self, name: &str, file: &str) -> Verdict {
        let act = |volume: &Volume| volume.unlink(&ROOT, ROOT_INO, file.as_bytes());
        let change = |files: &mut Files| drop(files.remove(file));
        let gone = self.apply(name, format!("unlink {file}, which may be lost"), act, change)?;
        if gone {
            return Ok(());
        }
        Err(Violation::new(Check::RefusedCall, format!("{name}/{file} cannot be deleted, nothing is broken")))
    }

    pub fn write_after_lift(&mut self, name: &str) -> Verdict {
        let content = self.content(5000);
        let act = |volume: &Volume| {
            let ino = match inode(volume, "after") {
                Ok(ino) => ino,
                Err(_) => {
                    let ino = volume.create(&ROOT, ROOT_INO, b"after", 0o644)?.ino;
                    volume.forget(ino, 1);
                    ino
                }
            };
            volume.write(&ROOT, ino, 0, &content, WriteFlags::default())
        };
        let change =
            |files: &mut Files| put(Arc::make_mut(files.entry("after".to_owned()).or_default()), 0, &content);
        match self.apply(name, "write after faults".to_owned(), act, change)? {
            true => Ok(()),
            false => {
                Err(Violation::new(Check::RefusedCall, format!("{name} takes no write, nothing is broken")))
            }
        }
    }

    fn rename(&mut self, name: &str, file: &str, to: &str) -> Verdict<bool> {
        if file == to {
            return Ok(false);
        }
        let act =
            |volume: &Volume| volume.rename(&ROOT, (ROOT_INO, file.as_bytes()), (ROOT_INO, to.as_bytes()), 0);
        let change = |files: &mut Files| {
            if let Some(content) = files.remove(file) {
                files.insert(to.to_owned(), content);
            }
        };
        self.apply(name, format!("rename {file} to {to}"), act, change)
    }

    fn copy(&mut self, name: &str, file: &str, files: &Files) -> Verdict<bool> {
        let Some(to) = self.pick(files).filter(|to| to != file) else { return Ok(false) };
        let source = files[file].clone();
        let from = self.rng.below(source.len().max(1) as u64) / 4096 * 4096;
        let at = self.rng.below(files[&to].len() as u64 + 1) / 4096 * 4096;
        let wanted = 1 + self.rng.below(60_000);
        let count = std::cell::Cell::new(wanted.min((source.len() as u64).saturating_sub(from)));
        let act = |volume: &Volume| {
            let (from_ino, to_ino) = (inode(volume, file)?, inode(volume, &to)?);
            count.set(volume.copy_file_range(&ROOT, (from_ino, from), (to_ino, at), wanted)?);
            Ok(())
        };
        let change = |files: &mut Files| {
            let piece = source.get(from as usize..(from + count.get()) as usize).unwrap_or_default();
            if let Some(content) = files.get_mut(&to).map(Arc::make_mut)
                && !piece.is_empty()
            {
                put(content, at, piece);
            }
        };
        let group = self.volumes[name].group.clone();
        self.model(&group).copying(Some((name.to_owned(), to.clone())));
        let before = self.models[&group].acknowledged();
        let what = format!("copy {file} at {from} to {to} at {at}, {wanted} bytes");
        let done = self.apply(name, what, act, change)?;
        if self.world.ended().is_none() {
            let model = self.model(&group);
            model.copying(None);
            if model.acknowledged() > before {
                model.went_on_by_blocks(name, &to);
            }
        }
        Ok(done)
    }

    /// Its answer is the promise.
    fn fsync(&mut self, name: &str) -> Verdict<bool> {
        self.say(format!("{name}: fsync"));
        let mounted = self.volumes[name].clone();
        let changed = self.changed.get(name).copied().unwrap_or(0);
        let (sender, receiver) = std::sync::mpsc::channel();
        mounted.mounted().fsync(&ROOT, ROOT_INO, Box::new(move |result| drop(sender.send(result))));
        let answer = receiver.try_recv();
        if self.world.ended().is_some() {
            return Ok(true);
        }
        match answer {
            // It waits for the copies that the volume asks for: it need not be answered while they cannot be had.
            Err(_) if self.shape.beyond || self.too_thin(mounted.rf) => Ok(false),
            Err(_) => Err(Violation::new(Check::Wedged, format!("{name}: fsync was not answered"))),
            Ok(Ok(())) => {
                self.promised(&mounted.group, changed);
                Ok(true)
            }
            Ok(Err(error)) => self.excuse_fs("fsync", &error, mounted.rf).map(|()| false),
        }
    }

    fn read_step(&mut self, name: &str, file: &str) -> Verdict<bool> {
        let mounted = self.volumes[name].clone();
        let content = self.models[&mounted.group].now.files(name)[file].clone();
        let offset = self.rng.below(content.len().max(1) as u64);
        let bytes = 1 + self.rng.below(30_000) as usize;
        let found =
            inode(mounted.mounted(), file).and_then(|ino| read_range(mounted.mounted(), ino, offset, bytes));
        if self.world.ended().is_some() {
            return Ok(true);
        }
        let end = content.len().min(offset as usize + bytes);
        match found {
            Ok(found) if found == content[(offset as usize).min(end)..end] => Ok(true),
            Ok(_) => {
                let what = format!("{name}/{file}: {bytes} bytes at {offset}");
                Err(self.explain(Check::WrongBytes, what))
            }
            Err(_) if self.tainted.iter().any(|tainted| tainted == name) => {
                self.coverage.road("a damaged volume gave EIO");
                Ok(true)
            }
            Err(error) => {
                let what = format!("{name}/{file}: {bytes} bytes at {offset}: {error:?}");
                Err(self.explain(Check::Unreadable, what))
            }
        }
    }

    /// Reads a volume whole.
    pub fn verify_volume(&mut self, name: &str) -> Verdict {
        let mounted = self.volumes[name].clone();
        let expected = self.models[&mounted.group].now.files(name);
        let tainted = self.tainted.iter().any(|tainted| tainted == name);
        let found = read_volume(mounted.mounted());
        if self.world.ended().is_some() {
            return Ok(());
        }
        let mismatch = match found {
            Ok(found) => {
                if tainted && found.values().any(Result::is_err) {
                    self.coverage.road("a damaged volume gave EIO");
                }
                compare(name, &found, &expected, tainted)
            }
            Err(_) if self.shape.beyond => None,
            Err(error) => Some(Mismatch::Unreadable(format!("{name}: {error:?}"))),
        };
        match mismatch {
            None => Ok(()),
            Some(Mismatch::Wrong(what)) => Err(self.explain(Check::WrongBytes, what)),
            Some(Mismatch::Unreadable(what)) => Err(self.explain(Check::Unreadable, what)),
        }
    }

    pub fn verify_all(&mut self) -> Verdict {
        let names: Vec<String> = self.volumes.keys().cloned().collect();
        names.iter().try_for_each(|name| self.verify_volume(name))
    }

    /// Switches every fault and all damage off and says whether the bytes were hidden or are lost.
    fn explain(&mut self, check: Check, what: String) -> Violation {
        for member in &mut self.members {
            member.lift();
            member.drive.hide_damage(true);
        }
        let lost: Vec<String> = self
            .volumes
            .iter()
            .filter_map(|(name, mounted)| {
                let expected = self.models[&mounted.group].now.files(name);
                let found = read_volume(mounted.mounted()).unwrap_or_default();
                match compare(name, &found, &expected, false) {
                    Some(Mismatch::Wrong(what) | Mismatch::Unreadable(what)) => Some(what),
                    None => None,
                }
            })
            .collect();
        let fate = if lost.is_empty() {
            "hidden by damage: with the damage switched off everything is right".to_owned()
        } else {
            format!("lost, even with the damage switched off: {}", lost.join("; "))
        };
        Violation::new(check, format!("{what} ({fate})"))
    }
}
