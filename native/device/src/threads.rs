//! The one place that starts threads: each has a name and a reason.

/// Starts a named thread. The name shows in `top -H` and in panics.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}
