//! Errors say what to do: a kind that a program can act on, and a message with the object's name and the way out.

/// The same kinds as the CLI's exit codes (DESIGN.md, "Command line").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Internal,
    Invalid,
    NotFound,
    Conflict,
    Denied,
    Unavailable,
    Corrupt,
    Fenced,
    NoSpace,
    Closed,
    /// A drive would have to be waited for on a thread that may not (`holdfast_device::patience`). Nothing was done.
    WouldWait,
}

#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }
    pub fn no_space(message: impl Into<String>) -> Self {
        Self::new(Kind::NoSpace, message)
    }
    pub fn closed() -> Self {
        Self::new(Kind::Closed, "the pool is closed")
    }
    /// Before a drive is read: whether this thread may wait for it.
    pub fn unless_hurried() -> Result<()> {
        match holdfast_device::patience::may_wait() {
            true => Ok(()),
            false => Err(Self::new(Kind::WouldWait, "this thread may not wait for a drive")),
        }
    }
    /// `what` was being read when decoding failed.
    pub fn decode(what: &str, error: holdfast_format::DecodeError) -> Self {
        Self::new(Kind::Corrupt, format!("{what}: {error}"))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
