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

#[test]
fn the_line_of_a_malformed_graph_is_shown_with_a_mark() {
    let folder = Folder::new();
    let file = folder.file(
        "bad.graph",
        "func @f(%x: f32[4]) -> (y: %0) {\n  %0 = frobnicate %x : f32[4]\n}\n",
    );
    let output = program()
        .args(["opt", &file])
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = [
        "  |",
        "2 |   %0 = frobnicate %x : f32[4]",
        "  |        ^^^^^^^^^^",
    ];
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(
        lines[0].ends_with("2:8: expected an op, found `frobnicate`"),
        "{stderr}"
    );
    assert_eq!(&lines[1..], expected, "{stderr}");
}
