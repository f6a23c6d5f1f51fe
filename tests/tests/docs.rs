//! The generated pages of `docs/` say what the code says. `UPDATE_DOCS=1` writes them.

use std::fmt::Write;
use std::path::Path;

use rwkvc_backend_api::tuning::FIELDS;
use rwkvc_ir::graph::parse;
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline::{Pass, STANDARD, Selection, run};
use rwkvc_tests::header::FileTest;

fn check(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the page is there");
    assert!(
        found == expected,
        "docs/{page} is stale: run UPDATE_DOCS=1 cargo test -p rwkvc-tests --test docs"
    );
}

#[test]
fn ops() {
    check("ops.md", &rwkvc_ir::graph::reference());
}

#[test]
fn kernel() {
    check("kernel.md", &rwkvc_ir::kernel::reference());
}

#[test]
fn passes() {
    let mut text = String::from(
        "# Passes\n\nIn the order that they run. `--passes` and `--no-pass` take these names; *unfused* leaves out those that \
         fuse.\n\n| pass | fuses | what it does |\n|---|---|---|\n",
    );
    for p in STANDARD {
        text += &format!(
            "| `{}` | {} | {} |\n",
            p.name,
            if p.fuses { "yes" } else { "" },
            p.summary
        );
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests/passes");
    let files = FileTest::read_all(&folder, "rwir");
    text += "\nThe text before and after each comes from its test, `tests/filetests/passes`.\n";
    for pass in STANDARD {
        text += &section(pass, &files);
    }
    check("passes.md", &text);
}

/// The table of choices in a page that has more.
#[test]
fn tuning() {
    let mut rows = String::new();
    for field in FIELDS {
        let values = field.values().join(", ");
        let by = match field.tokens {
            1 => "decode".into(),
            n => format!("a prompt of {n}"),
        };
        // Writing to a string cannot fail.
        _ = writeln!(
            rows,
            "| `{}` | {values} | {by} | {} |",
            field.name,
            field.summary()
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tuning.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let (before, rest) = page.split_once("|---|---|---|---|\n").expect("a table");
    let table = rest.lines().take_while(|line| line.starts_with('|'));
    let after = &rest[table.map(|line| line.len() + 1).sum()..];
    check("tuning.md", &format!("{before}|---|---|---|---|\n{rows}{after}"));
}

/// The test of a pass as its documentation, and what its other tests show.
fn section(pass: &Pass, files: &[FileTest]) -> String {
    let mut text = format!("\n## `{}`\n", pass.name);
    let own = |f: &&FileTest| f.passes() == Some(vec![pass.name]);
    let (shown, others): (Vec<_>, Vec<_>) = files.iter().filter(own).partition(|f| f.name == pass.name);
    for file in shown {
        let graph = parse(&file.body).unwrap_or_else(|e| panic!("{}: {e}", file.name));
        let selection = Selection::only(&[pass.name]).expect("a pass");
        let after = run(graph, &selection, &mut Fuel::new(None), &mut |_, _| {}).expect("the pass runs");
        text += &format!(
            "\n{}\n\n```text\n{}```\n\nbecomes\n\n```text\n{}```\n",
            file.prose, file.body, *after
        );
    }
    for (title, unchanged) in [("It also does this", false), ("It leaves alone", true)] {
        let mut cases = others.iter().filter(|f| f.unchanged == unchanged).peekable();
        if cases.peek().is_some() {
            text += &format!("\n{title}:\n\n");
        }
        for file in cases {
            text += &format!("- `{}`: {}\n", file.name, file.prose);
        }
    }
    text
}
