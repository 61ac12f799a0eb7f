//! Makes a failing sequence short: leaves out runs of ops as long as a difference remains.

use crate::compare::{Ground, Trouble};
use crate::op::Op;

/// At most `tries` replays. The last op stays, since it is the one that showed the difference.
pub fn shrink(ground: &Ground, name: &str, ops: &[Op], tries: usize) -> Result<Vec<Op>, Trouble> {
    let mut kept = ops.to_vec();
    let mut left = tries;
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 && left > 0 {
        let mut end = kept.len().saturating_sub(1);
        let mut shrunk = false;
        while end > 0 && left > 0 {
            let start = end.saturating_sub(chunk);
            let candidate: Vec<Op> = kept[..start].iter().chain(&kept[end..]).cloned().collect();
            left -= 1;
            if ground.replay_differs(name, &candidate)? {
                kept = candidate;
                shrunk = true;
            }
            end = start;
        }
        if !shrunk || chunk > 1 {
            chunk /= 2;
        }
    }
    Ok(kept)
}
