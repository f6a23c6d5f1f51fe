//! Runs the files of `tests/filetests`: IR text whose header says what to do with it.

mod kernels;
mod passes;
mod plans;
mod runs;

use std::path::{Path, PathBuf};

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests").join(kind)
}

/// Runs `test` with snapshots kept beside the files of one kind.
fn with_snapshots(kind: &str, test: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder(kind).join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(test);
}
