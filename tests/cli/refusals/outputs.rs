//! Places that cannot be written.

use crate::harness::*;

#[test]
fn places_that_cannot_be_written_are_left_alone() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("taken")).expect("a folder");
    let sizes = ["--layers", "1", "--dim", "64", "--vocab", "100"];
    for out in ["no/such/folder/out", "taken"] {
        folder.refuses([&["generate", "-o", out][..], &sizes].concat(), &[out]);
        for stage in ["artifact", "obj", "graph"] {
            let args = [
                "compile",
                tiny(),
                "-o",
                out,
                "--emit",
                stage,
                "--backend",
                "cranelift",
            ];
            folder.refuses(args, &[out]);
        }
        let run = [
            "run",
            artifact(),
            "--tokens",
            "1",
            "--max-tokens",
            "1",
            "--threads",
            "1",
        ];
        folder.refuses(
            [&run[..], &["--format", "json", "--state-out", out]].concat(),
            &[out],
        );
    }
}
