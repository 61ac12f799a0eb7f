//! Labels of drives: `rack/block/node/drive`, given when a drive joins, changed later by [`Pool::label_drive`].

use super::Pool;
use super::disk::Disk;
use super::domains::{self, Label};
use super::publish::Change;
use crate::error::{Error, Kind, Result};
use holdfast_format::limits::DOMAIN_BYTES_MAX;
use holdfast_format::manifest::{DriveEntry, Item};
use holdfast_format::{Protection, Uuid};
use std::sync::Arc;

/// Parts of a label, the drive's own included.
const PARTS_MAX: usize = 4;
/// A uuid may be added.
const GIVEN_BYTES_MAX: usize = DOMAIN_BYTES_MAX - 40;

/// Refuses what is no label; `path` names the drive.
pub(super) fn check(path: &str, label: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!("drive {path}: {label:?} is no label rack/block/node/drive: {why}")))
    };
    if label.len() > GIVEN_BYTES_MAX {
        return refuse(&format!("it has more than {GIVEN_BYTES_MAX} bytes"));
    }
    if label.split('/').count() > PARTS_MAX {
        return refuse("it has more than four parts");
    }
    let fit = |part: char| part.is_ascii_alphanumeric() || "._-".contains(part);
    match label.split('/').flat_map(str::chars).find(|part| !fit(*part)) {
        Some(bad) => refuse(&format!("parts are made of letters, digits, dots, underscores and hyphens, not {bad:?}")),
        None => Ok(()),
    }
}

/// All four parts; the drive's own is its uuid where none was given.
pub(super) fn complete(label: &str, drive: Uuid) -> String {
    let mut parts: Vec<&str> = label.split('/').collect();
    parts.resize(PARTS_MAX, "");
    let own = drive.to_string();
    if parts[PARTS_MAX - 1].is_empty() {
        parts[PARTS_MAX - 1] = &own;
    }
    parts.join("/")
}

impl Pool {
    /// Gives a drive another label. Copies that are in one domain now move apart in the background. `promises`: what the
    /// pool's volumes ask for.
    ///
    /// Errors: `Invalid` (no label), `Conflict` when a promise could not be kept any more that can be kept now.
    pub fn label_drive(&self, index: u16, label: &str, promises: &[Protection]) -> Result<()> {
        self.check_writable()?;
        let disk = &self.disks[index as usize];
        check(&disk.name(), label)?;
        let label = complete(label, disk.uuid);
        let new = Arc::new(Label::new(&label));
        let then_of = |disk: &Disk| if disk.index == index { new.clone() } else { disk.label() };
        let accepting = self.disks.iter().filter(|disk| disk.accepts());
        let labels: Vec<(u16, Arc<Label>)> = accepting.map(|disk| (disk.index, then_of(disk))).collect();
        for promise in promises {
            let then = domains::count(labels.iter().map(|(at, its)| (*at, &**its)), promise.domain);
            if then < promise.rf as usize && self.domains(promise.domain) >= promise.rf as usize {
                let level = promise.domain.name();
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "with label {label} on drive {} pool {} has {then} {level} domains, RF {} needs {}: label other \
                         drives first, add one in another {level}, or lower the volumes' RF or domain",
                        disk.name(),
                        self.name,
                        promise.rf,
                        promise.rf
                    ),
                ));
            }
        }
        let mut journal = self.journal.lock();
        let Some(entry) = self.image.read().drives.get(&index).cloned() else { return Err(Error::closed()) };
        let mut change = Change::new(self);
        change.items.push(Item::Drive(DriveEntry { domain: label.clone(), ..entry }));
        self.commit(&mut journal, change, &|| {})?;
        disk.set_label(&label);
        let failed = self.write_superblocks(&mut journal, super::superblocks::Beat::All);
        self.put_out_locked(&mut journal, failed)?;
        drop(journal);
        self.look_anew();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_completed_and_checked() {
        let uuid = Uuid([7; 16]);
        assert_eq!(complete("", uuid), format!("///{uuid}"));
        assert_eq!(complete("r1", uuid), format!("r1///{uuid}"));
        assert_eq!(complete("r1/b/n/bay-3", uuid), "r1/b/n/bay-3");
        check("d", "r1/b.2/n_3").unwrap();
        for bad in ["a/b/c/d/e", "a b", "rack\n", "r\u{e4}ck", &"x".repeat(300)] {
            assert_eq!(check("d", bad).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }
}
