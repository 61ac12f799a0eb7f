//! Decoders survive any bytes; encoders have the kernel's sizes and offsets.

use super::input::*;
use super::output::*;
use super::*;
use holdfast_device::Rng;
use holdfast_format::Ino;
use holdfast_format::inode::Time;
use holdfast_store::api::Attr;

/// Runs every decoder over one message; returns how many of them took it.
fn decode_everything(bytes: &[u8]) -> usize {
    let mut taken = 0;
    for setxattr_ext in [false, true] {
        if let Some(Ok(message)) = Message::cut(bytes, setxattr_ext) {
            taken += 1;
            taken += batch_forget(message.op_in, message.payload).count();
        }
    }
    taken += usize::from(InitIn::parse(bytes).is_some());
    taken += usize::from(SetAttrIn::parse(bytes).is_some());
    taken += usize::from(MknodIn::parse(bytes).is_some()) + usize::from(MkdirIn::parse(bytes).is_some());
    taken += usize::from(CreateIn::parse(bytes).is_some());
    taken += usize::from(RenameIn::parse(opcode::RENAME, bytes).is_some());
    taken += usize::from(RenameIn::parse(opcode::RENAME2, bytes).is_some());
    taken += usize::from(ReadIn::parse(bytes).is_some()) + usize::from(WriteIn::parse(bytes).is_some());
    taken += usize::from(SetxattrIn::parse(bytes).is_some());
    taken += usize::from(parse_xattr_size(bytes).is_some()) + usize::from(parse_u64(bytes).is_some());
    taken += usize::from(FallocateIn::parse(bytes).is_some()) + usize::from(LseekIn::parse(bytes).is_some());
    taken += usize::from(CopyFileRangeIn::parse(bytes).is_some());
    taken += usize::from(take_string(bytes).is_some());
    taken + batch_forget(bytes, bytes).count()
}

fn message(op: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; IN_HEADER_BYTES];
    let len = (IN_HEADER_BYTES + body.len()) as u32;
    bytes[0..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..8].copy_from_slice(&op.to_ne_bytes());
    bytes[8..16].copy_from_slice(&77_u64.to_ne_bytes());
    bytes[16..24].copy_from_slice(&5_u64.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn random_bytes_are_survived() {
    let mut rng = Rng::from_seed(20_261_123);
    let mut taken = 0;
    for _ in 0..60_000 {
        let length = rng.below(200) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        if length >= IN_HEADER_BYTES && rng.chance(1, 2) {
            // A true length and a known opcode lead deeper.
            bytes[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
            bytes[4..8].copy_from_slice(&(rng.below(56) as u32).to_ne_bytes());
            bytes[36..40].copy_from_slice(&(rng.below(4) as u32).to_ne_bytes());
        }
        taken += decode_everything(&bytes);
    }
    assert!(taken > 100_000, "the decoders refused nearly everything: {taken}");
}

#[test]
fn every_truncation_of_every_request_is_refused_or_whole() {
    for op in 0..60 {
        let op_in_bytes = op_in_bytes(op, true);
        let whole = message(op, &vec![1; op_in_bytes + 20]);
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            // As read: the length in the header is that of the whole message.
            match Message::cut(&cut, true) {
                None => assert!(length < IN_HEADER_BYTES),
                Some(Err(header)) => assert_eq!((header.opcode, header.unique), (op, 77)),
                Some(Ok(_)) => panic!("opcode {op}: {length} of {} bytes taken", whole.len()),
            }
            // And with a header that agrees.
            if length >= IN_HEADER_BYTES {
                cut[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
                let parsed = Message::cut(&cut, true).expect("has a header");
                assert_eq!(parsed.is_ok(), length >= IN_HEADER_BYTES + op_in_bytes, "opcode {op}");
            }
            decode_everything(&cut);
        }
    }
}

#[test]
fn extensions_are_no_payload() {
    let mut bytes = message(opcode::LOOKUP, b"name\0\0\0\0EXTENDED");
    bytes[36..38].copy_from_slice(&1_u16.to_ne_bytes());
    let cut = Message::cut(&bytes, true).expect("header").expect("whole");
    assert_eq!(cut.payload, b"name\0\0\0\0");
    bytes[36..38].copy_from_slice(&u16::MAX.to_ne_bytes());
    assert!(Message::cut(&bytes, true).expect("header").is_err());
}

#[test]
fn batch_forget_believes_the_bytes_not_the_count() {
    let mut op_in = u32::MAX.to_ne_bytes().to_vec();
    op_in.extend([0; 4]);
    let payload: Vec<u8> = [7_u64, 1, 8, 2].iter().flat_map(|value| value.to_ne_bytes()).chain([9]).collect();
    assert_eq!(batch_forget(&op_in, &payload).collect::<Vec<_>>(), [(7, 1), (8, 2)]);
    op_in[0..4].copy_from_slice(&1_u32.to_ne_bytes());
    assert_eq!(batch_forget(&op_in, &payload).count(), 1);
}

#[test]
fn nanoseconds_out_of_range_are_refused_only_where_they_count() {
    let mut bytes = [0; 88];
    bytes[56..60].copy_from_slice(&1_000_000_000_u32.to_ne_bytes());
    assert!(SetAttrIn::parse(&bytes).is_some());
    bytes[0..4].copy_from_slice(&fattr::ATIME.to_ne_bytes());
    assert!(SetAttrIn::parse(&bytes).is_none());
}

fn sample(mode: u32) -> Attr {
    let time = |sec| Time { sec, nsec: 5 };
    Attr {
        ino: Ino(0x0102_0304),
        mode,
        nlink: 3,
        uid: 1000,
        gid: 1001,
        rdev: 0x0012_3456,
        size: 1 << 40,
        blocks: 16,
        atime: time(-1),
        mtime: time(2),
        ctime: time(3),
        btime: time(4),
    }
}

#[test]
fn suid_files_are_never_remembered() {
    let lifetimes = Lifetimes { entry_s: 100, attr_s: 200, negative_s: 300 };
    let attr_valid =
        |mode| u64::from_ne_bytes(entry(&sample(mode), &lifetimes)[24..32].try_into().expect("8"));
    assert_eq!(attr_valid(0o100_755), 200);
    assert_eq!(attr_valid(0o104_755), 0);
    assert_eq!(attr_valid(0o102_755), 0);
    assert_eq!(attr_valid(0o042_755), 200, "sgid of a directory is inheritance, not privilege");
}

/// Offsets checked one by one against the kernel's header.
#[test]
fn statx_and_attr_lie_where_the_kernel_looks() {
    let lifetimes = Lifetimes { entry_s: 1, attr_s: 1, negative_s: 1 };
    let out = statx(&sample(0o060_644), &lifetimes);
    let u64_at = |at: usize| u64::from_ne_bytes(out[at..at + 8].try_into().expect("8"));
    let u32_at = |at: usize| u32::from_ne_bytes(out[at..at + 4].try_into().expect("4"));
    assert_eq!((u32_at(32), u64_at(64), u64_at(72)), (0xfff, 0x0102_0304, 1 << 40));
    assert_eq!((u64_at(96), u64_at(112), u64_at(128), u64_at(144)), (u64::MAX, 4, 3, 2));
    // Linux's dev_t: 12 bits of major above 8 bits of minor, then 12 more of minor.
    assert_eq!((u32_at(160), u32_at(164)), (0x234, 0x156));
    let out = attr(&sample(0o060_644));
    assert_eq!(&out[60..64], &0o060_644_u32.to_ne_bytes());
    assert_eq!(&out[76..80], &0x0012_3456_u32.to_ne_bytes());
}

#[test]
fn a_directory_page_refuses_what_does_not_fit() {
    let mut buffer = [0xff; 64];
    let mut page = DirectoryPage::new(&mut buffer);
    assert!(page.add(9, 8, 4, b"abc", None));
    assert!(page.add(10, 4, 5, b"12345678", None));
    assert!(!page.add(11, 8, 6, b"", None));
    assert_eq!(page.used(), 64);
    assert_eq!(&buffer[16..32], b"\x03\0\0\0\x08\0\0\0abc\0\0\0\0\0");
}
