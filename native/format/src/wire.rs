//! Fixed-width little-endian fields, written and read in order. The only primitives that layouts are made of.
//!
//! One layout needs numbers that are as short as they are small (the header stream, `header.rs`): seven bits a byte, the lowest
//! first, bit 7 set on all but the last, which is not 0 unless it is the only one.

/// Why bytes could not be decoded. Carries no payload: the caller knows which object it was reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    Truncated,
    /// A field holds a value that the layout does not allow.
    Invalid(&'static str),
    /// The checksum does not match.
    Checksum,
    /// An incompatible feature bit or version that this program does not know.
    Unsupported(u64),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated"),
            Self::Invalid(what) => write!(f, "invalid {what}"),
            Self::Checksum => f.write_str("checksum mismatch"),
            Self::Unsupported(bits) => write!(f, "unsupported format features {bits:#x}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Appends fields to a byte vector.
pub trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u48(&mut self, value: u64);
    fn put_u64(&mut self, value: u64);
    fn put_i64(&mut self, value: i64);
    fn put_bytes(&mut self, value: &[u8]);
    fn put_short(&mut self, value: u64);
    /// Signed: small numbers of either sign are short.
    fn put_short_signed(&mut self, value: i64);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u48(&mut self, value: u64) {
        debug_assert!(value < 1 << 48);
        self.extend_from_slice(&value.to_le_bytes()[..6]);
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_bytes(&mut self, value: &[u8]) {
        self.extend_from_slice(value);
    }
    fn put_short(&mut self, mut value: u64) {
        while value > 0x7f {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
    fn put_short_signed(&mut self, value: i64) {
        self.put_short((value << 1 ^ value >> 63) as u64);
    }
}

/// Takes fields off the front of a byte slice; never panics, whatever the bytes are.
#[derive(Clone, Copy, Debug)]
pub struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u48(&mut self) -> Result<u64, DecodeError> {
        let low: [u8; 6] = self.array()?;
        let mut full = [0u8; 8];
        full[..6].copy_from_slice(&low);
        Ok(u64::from_le_bytes(full))
    }
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    pub fn uuid(&mut self) -> Result<crate::Uuid, DecodeError> {
        Ok(crate::Uuid(self.array()?))
    }
    pub fn short(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 || shift > 0 && byte == 0 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid("short number"))
    }
    pub fn short_signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.short()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
    /// The layout ends here: anything left over is an error.
    pub fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Invalid("trailing bytes")) }
    }
}
