//! An interrupted program leaves no half-written files.

#[path = "runtime/toy.rs"]
#[expect(dead_code, reason = "only the manifest is of use here")]
mod toy;

use rwkvc_runtime::{ArtifactWriter, remove_pending_files};

// The only test of this program: the pending files of tests run at the same time would be removed, too.
#[test]
fn pending_files_are_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let count = || std::fs::read_dir(dir.path()).expect("a directory").count();
    let path = dir.path().join("toy.rwkvc");
    let mut writers =
        [(); 2].map(|()| ArtifactWriter::create(&path, toy::manifest(), toy::CODE).expect("a writer"));
    assert_eq!(count(), 2);
    remove_pending_files();
    assert_eq!(count(), 0);
    // Whoever goes on nevertheless gets an error in the end.
    for weight in toy::weights() {
        writers[0].weight(&toy::bytes(weight)).expect("a weight");
    }
    let [first, second] = writers;
    assert!(first.finish().is_err());
    drop(second);
    assert_eq!(count(), 0);
}
