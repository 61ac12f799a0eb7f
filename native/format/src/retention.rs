//! What a group keeps of the past, where it was told: one record a group.
//!
//! ```text
//! retention = fields u8 | limit_percent u8 | steps_len u8 | 0 u8 | window_s u64 | limit_bytes u64 | step × steps_len
//! step      = every_s u64 | for_s u64
//! fields    = bit 0: window_s counts, bit 1: the steps count, bit 2: the limit counts (bytes, or percent of the pool where
//!             bytes are 0); what does not count follows the daemon's configuration and is 0
//! ```

use crate::limits::THIN_STEPS_MAX;
use crate::wire::{DecodeError, Put, Take};

const FIELD_WINDOW: u8 = 1;
const FIELD_THIN: u8 = 2;
const FIELD_LIMIT: u8 = 4;

/// One point for every so many seconds is kept for so long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThinStep {
    pub every_s: u64,
    pub for_s: u64,
}

/// Room for history beside the pool's own limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HistoryLimit {
    /// Only the pool's limit.
    #[default]
    None,
    Bytes(u64),
    /// Of the pool.
    Percent(u8),
}

/// `None`: as the daemon's configuration says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetentionRecord {
    /// Every second is kept for so long.
    pub window_s: Option<u64>,
    /// And then these, finest first.
    pub thin: Option<Vec<ThinStep>>,
    pub limit: Option<HistoryLimit>,
}

impl RetentionRecord {
    pub fn encode(&self) -> Vec<u8> {
        let steps = self.thin.as_deref().unwrap_or_default();
        debug_assert!(steps.len() <= THIN_STEPS_MAX);
        let (percent, bytes) = match self.limit {
            Some(HistoryLimit::Percent(percent)) => (percent, 0),
            Some(HistoryLimit::Bytes(bytes)) => (0, bytes),
            Some(HistoryLimit::None) | None => (0, 0),
        };
        let field = |there: bool, bit: u8| if there { bit } else { 0 };
        let mut out = Vec::with_capacity(20 + 16 * steps.len());
        out.put_u8(
            field(self.window_s.is_some(), FIELD_WINDOW)
                | field(self.thin.is_some(), FIELD_THIN)
                | field(self.limit.is_some(), FIELD_LIMIT),
        );
        out.put_u8(percent);
        out.put_u8(steps.len() as u8);
        out.put_u8(0);
        out.put_u64(self.window_s.unwrap_or(0));
        out.put_u64(bytes);
        for step in steps {
            out.put_u64(step.every_s);
            out.put_u64(step.for_s);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let (fields, percent, steps_len) = (take.u8()?, take.u8()?, take.u8()? as usize);
        if take.u8()? != 0 || fields & !(FIELD_WINDOW | FIELD_THIN | FIELD_LIMIT) != 0 || steps_len > THIN_STEPS_MAX {
            return Err(DecodeError::Invalid("what of the past is kept"));
        }
        let (window_s, limit_bytes) = (take.u64()?, take.u64()?);
        let mut thin = Vec::with_capacity(steps_len);
        for _ in 0..steps_len {
            let step = ThinStep { every_s: take.u64()?, for_s: take.u64()? };
            if step.every_s == 0 {
                return Err(DecodeError::Invalid("a step of thinning"));
            }
            thin.push(step);
        }
        take.end()?;
        let limit = match (limit_bytes, percent) {
            (0, 0) => HistoryLimit::None,
            (0, percent) => HistoryLimit::Percent(percent),
            (bytes, 0) => HistoryLimit::Bytes(bytes),
            _ => return Err(DecodeError::Invalid("a limit of the past")),
        };
        let field = |bit: u8| fields & bit != 0;
        let unsaid = (!field(FIELD_WINDOW) && window_s != 0) || (!field(FIELD_THIN) && steps_len != 0);
        if unsaid || (!field(FIELD_LIMIT) && limit != HistoryLimit::None) {
            return Err(DecodeError::Invalid("what of the past is kept, and not said"));
        }
        Ok(Self {
            window_s: field(FIELD_WINDOW).then_some(window_s),
            thin: field(FIELD_THIN).then_some(thin),
            limit: field(FIELD_LIMIT).then_some(limit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of FORMAT.md.
    #[test]
    fn a_record_is_golden() {
        let record = RetentionRecord {
            window_s: Some(3600),
            thin: Some(vec![ThinStep { every_s: 60, for_s: 86_400 }]),
            limit: Some(HistoryLimit::Percent(10)),
        };
        #[rustfmt::skip]
        let golden: &[u8] = &[
            7, 10, 1, 0,
            0x10, 0x0e, 0, 0, 0, 0, 0, 0, // window_s
            0, 0, 0, 0, 0, 0, 0, 0,
            60, 0, 0, 0, 0, 0, 0, 0, // every_s
            0x80, 0x51, 1, 0, 0, 0, 0, 0, // for_s
        ];
        assert_eq!(record.encode(), golden);
        assert_eq!(RetentionRecord::decode(golden).unwrap(), record);
    }

    #[test]
    fn what_is_not_said_stays_unsaid_and_nonsense_is_refused() {
        let silent = RetentionRecord::default();
        assert_eq!(RetentionRecord::decode(&silent.encode()).unwrap(), silent);
        let none = RetentionRecord { thin: Some(Vec::new()), limit: Some(HistoryLimit::None), window_s: Some(0) };
        assert_eq!(RetentionRecord::decode(&none.encode()).unwrap(), none);
        let bytes = RetentionRecord { limit: Some(HistoryLimit::Bytes(7)), ..silent };
        assert_eq!(RetentionRecord::decode(&bytes.encode()).unwrap(), bytes);
        let mut wrong = none.encode();
        wrong[0] = 8;
        assert!(RetentionRecord::decode(&wrong).is_err());
        assert!(RetentionRecord::decode(&none.encode()[..19]).is_err());
    }
}
