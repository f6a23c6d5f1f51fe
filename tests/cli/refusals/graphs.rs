//! Texts that are no graph.

use crate::harness::*;

#[test]
fn malformed_graphs_are_refused_with_their_place() {
    let folder = Folder::new();
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["1:1", "expected `func`"]),
        (b"func", &["1:5"]),
        (b"func @f() -> () { %x = frobnicate %y : f32[1] }", &["1:"]),
        (b"func @f(\n  %x: f99[4]\n) {\n}\n", &["2:"]),
        (b"\xff\xfe", &["not text"]),
    ];
    for (text, names) in cases {
        let file = folder.file("bad.graph", text);
        folder.refuses(["opt", &file], &[&["bad.graph"], *names].concat());
    }
    let whole = succeeds([
        "compile",
        tiny(),
        "--emit",
        "graph",
        "--backend",
        "cranelift",
        "-o",
        "-",
    ]);
    let file = folder.file("bad.graph", &whole[..whole.len() / 2]);
    folder.refuses(["opt", &file], &["bad.graph"]);
    let file = folder.file("good.graph", &whole);
    folder.refuses(["opt", &file, "--passes", "sparkle"], &["`sparkle`"]);
}
