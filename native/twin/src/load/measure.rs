//! What a phase gave: rates, percentiles, and the distribution of latencies as a histogram.

use std::collections::BTreeMap;

/// Buckets an octave of the histogram: 12.5 % apart, as exact as a plot can show.
const BUCKETS_PER_OCTAVE_BITS: u32 = 3;

/// What one phase of one work gave.
pub struct Measure {
    pub work: String,
    pub jobs: usize,
    /// Bytes of one read or write.
    pub block_bytes: usize,
    pub operations: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Sorted.
    pub latencies_ns: Vec<u64>,
}

impl Measure {
    /// The latency that `per_mille` of all ops did not exceed, in microseconds.
    pub fn latency_us(&self, per_mille: usize) -> f64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        let at = (self.latencies_ns.len() * per_mille / 1000).min(last);
        self.latencies_ns.get(at).map_or(0.0, |ns| *ns as f64 / 1000.0)
    }

    /// Ops by latency: (lower bound of the bucket in nanoseconds, ops). A bucket ends at the next one's bound; bounds
    /// are the same for every measure, so that histograms add up.
    pub fn histogram(&self) -> BTreeMap<u64, u64> {
        let mut buckets = BTreeMap::new();
        for ns in &self.latencies_ns {
            *buckets.entry(bucket_of(*ns)).or_insert(0) += 1;
        }
        buckets
    }

    pub fn json(&self) -> String {
        let seconds = self.seconds.max(1e-9);
        let histogram: Vec<String> =
            self.histogram().iter().map(|(low_ns, count)| format!("[{low_ns},{count}]")).collect();
        format!(
            "{{\"work\":\"{}\",\"jobs\":{},\"blockBytes\":{},\"operations\":{},\"seconds\":{:.6},\
             \"operationsPerSecond\":{:.2},\"mibPerSecond\":{:.2},\"latencyMicroseconds\":{{\"p50\":{:.1},\
             \"p90\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.1}}},\"histogram\":[{}]}}",
            self.work,
            self.jobs,
            self.block_bytes,
            self.operations,
            self.seconds,
            self.operations as f64 / seconds,
            self.bytes as f64 / seconds / f64::from(1 << 20),
            self.latency_us(500),
            self.latency_us(900),
            self.latency_us(990),
            self.latency_us(999),
            self.latency_us(1000),
            histogram.join(","),
        )
    }
}

/// The value without all but its highest four bits: 9,300 → 9,216.
fn bucket_of(ns: u64) -> u64 {
    let drop_bits = ns.checked_ilog2().unwrap_or(0).saturating_sub(BUCKETS_PER_OCTAVE_BITS);
    ns >> drop_bits << drop_bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(latencies_ns: Vec<u64>) -> Measure {
        let operations = latencies_ns.len() as u64;
        let work = "x".to_owned();
        Measure { work, jobs: 1, block_bytes: 4096, operations, bytes: 0, seconds: 1.0, latencies_ns }
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_latencies() {
        let measure = measure((1..=1000).map(|at| at * 1000).collect());
        assert_eq!(measure.latency_us(500), 501.0);
        assert_eq!(measure.latency_us(1000), 1000.0);
    }

    #[test]
    fn buckets_hold_every_op_within_an_eighth_of_its_latency() {
        let latencies_ns: Vec<u64> = (0..20_000).map(|at| at * 37).collect();
        let histogram = measure(latencies_ns.clone()).histogram();
        assert_eq!(histogram.values().sum::<u64>(), 20_000);
        for ns in latencies_ns {
            let low = bucket_of(ns);
            assert!(low <= ns && (ns - low) * 8 <= ns, "{ns} in the bucket from {low}");
            assert!(histogram.contains_key(&low));
        }
        assert_eq!(
            (bucket_of(0), bucket_of(7), bucket_of(16), bucket_of(17), bucket_of(9_300)),
            (0, 7, 16, 16, 9_216)
        );
    }
}
