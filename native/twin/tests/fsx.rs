//! The exerciser of one file tested: it must agree with the kernel's own file system in every configuration.

use holdfast_twin::fsx::{CONFIGS, Exerciser};
use holdfast_twin::op::Path;

#[test]
fn every_configuration_agrees_with_the_kernel() {
    // The build's own folder rather than /tmp, which may not know O_DIRECT.
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    for config in CONFIGS {
        let path = folder.join(format!("fsx-{}-{}", config.name, std::process::id()));
        let path = Path(path.into_os_string().into_encoded_bytes());
        let done = Exerciser::new(config, &path, 1).and_then(|exerciser| exerciser.run(600));
        if let Err(failure) = done {
            panic!("{}: action {}: {}", config.name, failure.action, failure.text);
        }
    }
}
