//! The generated pages of `docs/` say what the code says. `UPDATE_DOCS=1` writes them.

use std::path::Path;

use rwkvc_passes::pipeline::STANDARD;

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
    text += "\nThe text before and after each pass is in its source, `passes/src`.\n";
    check("passes.md", &text);
}
