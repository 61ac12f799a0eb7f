//! What is mounted where: `/proc/self/mountinfo`, which answers even when a dead file system would not.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of mountinfo: `id parent major:minor root point options [optional …] - type source super-options`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountEntry {
    /// As in the file: `0:52`. For FUSE the part after the colon names the connection in fusectl.
    pub device: String,
    pub point: PathBuf,
    pub kind: String,
    pub source: OsString,
}

impl MountEntry {
    /// The connection's name below `/sys/fs/fuse/connections`.
    pub fn connection(&self) -> &str {
        self.device.split_once(':').map_or("", |(_, minor)| minor)
    }
}

/// Undoes mountinfo's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let digits = code.filter(|code| code.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let Some(digits) = digits {
            out.push(digits.iter().fold(0_u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
            rest = &tail[3..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    Some(MountEntry {
        device: String::from_utf8(fields.get(2)?.to_vec()).ok()?,
        point: PathBuf::from(unescape(fields.get(4)?)),
        kind: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: unescape(fields.get(dash + 2)?),
    })
}

fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// What lies on top at `point` (an absolute path without links), if anything is mounted exactly there.
pub fn mounted_at(point: &Path) -> io::Result<Option<MountEntry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&text)
        .into_iter()
        .rfind(|entry| entry.point.as_os_str().as_bytes() == point.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_escapes_and_optional_fields() {
        let text =
            b"36 35 0:52 / /mnt/a\\040b\\134c rw,nosuid shared:1 master:2 - fuse.holdfast pool/vol rw\n\
            37 35 0:53 / /mnt/x rw - fuse.holdfast a\\012b rw\n\
            junk\n38 35 - -\n";
        let entries = parse(text);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].point, PathBuf::from("/mnt/a b\\c"));
        assert_eq!((entries[0].connection(), entries[0].kind.as_str()), ("52", "fuse.holdfast"));
        assert_eq!(entries[1].source, OsString::from("a\nb"));
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut rng = holdfast_device::Rng::from_seed(7);
        for _ in 0..20_000 {
            let length = rng.below(80);
            let alphabet = b" \\0719-:/a\n\xff";
            let text: Vec<u8> =
                (0..length).map(|_| alphabet[rng.below(alphabet.len() as u64) as usize]).collect();
            parse(&text);
        }
    }
}
