//! The one place that starts threads: each has a name and a reason.

/// Starts a named thread. The name shows in `top -H` and in panics.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Runs a few jobs at once, the last on the calling thread; results in order. When a thread cannot be started the
/// calling thread does its job, too. A job's panic is the caller's panic.
pub fn run_parallel<T: Send, Job: FnOnce() -> T + Send>(name: &str, jobs: Vec<Job>) -> Vec<T> {
    // A refused thread gives its closure up, so jobs wait in cells that both sides can take them from.
    let cells: Vec<_> = jobs.into_iter().map(|job| parking_lot::Mutex::new(Some(job))).collect();
    let run = |cell: &parking_lot::Mutex<Option<Job>>| {
        let job = cell.lock().take();
        job.map(|job| job())
    };
    std::thread::scope(|scope| {
        let helped = cells.len().saturating_sub(1);
        let started: Vec<_> = cells[..helped]
            .iter()
            .map(|cell| {
                let builder = std::thread::Builder::new().name(name.to_owned());
                builder.spawn_scoped(scope, || run(cell)).ok()
            })
            .collect();
        let last = cells.last().and_then(run);
        let results = started.into_iter().zip(&cells).map(|(handle, cell)| match handle {
            Some(handle) => handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => run(cell),
        });
        results.flatten().chain(last).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn parallel_jobs_run_at_once_and_answer_in_order() {
        let together = Barrier::new(3);
        let job = |number: u32| {
            let together = &together;
            move || {
                // Returns only when all three are here: one after the other would hang.
                together.wait();
                number
            }
        };
        assert_eq!(run_parallel("test", vec![job(1), job(2), job(3)]), [1, 2, 3]);
        assert_eq!(run_parallel("test", vec![|| std::thread::current().id()]), [std::thread::current().id()]);
        assert!(run_parallel("test", Vec::<fn() -> u32>::new()).is_empty());
    }
}
