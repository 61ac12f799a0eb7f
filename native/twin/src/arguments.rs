//! Command lines of the form `--name value`, nothing more.

use std::collections::BTreeMap;

/// Options by name. Every option that was given must be taken, else `finish` says which is unknown.
pub struct Arguments {
    values: BTreeMap<String, String>,
}

impl Arguments {
    /// Reads the process's own arguments from the `skip`-th on. A name without a value counts as `"true"`.
    pub fn from_process(skip: usize) -> Result<Self, String> {
        Self::parse(std::env::args().skip(skip))
    }

    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                return Err(format!("unexpected argument {word:?}: options are --name value"));
            };
            let value = match words.peek() {
                Some(next) if !next.starts_with("--") => words.next().unwrap_or_default(),
                _ => "true".to_owned(),
            };
            if values.insert(name.to_owned(), value).is_some() {
                return Err(format!("--{name} is given twice"));
            }
        }
        Ok(Self { values })
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    pub fn require(&mut self, name: &str) -> Result<String, String> {
        self.take(name).ok_or_else(|| format!("--{name} is missing"))
    }

    pub fn flag(&mut self, name: &str) -> bool {
        self.take(name).is_some_and(|value| value != "false")
    }

    pub fn number(&mut self, name: &str, otherwise: u64) -> Result<u64, String> {
        match self.take(name) {
            None => Ok(otherwise),
            Some(text) => text.parse().map_err(|_| format!("--{name} {text:?} is not a number")),
        }
    }

    pub fn finish(self) -> Result<(), String> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("unknown option --{name}")),
        }
    }
}
