//! Files of `filetests/passes`: the text before, the snapshot after, and the same values from both.
//!
//! `UPDATE_FILETESTS=1` rewrites their IR as the printer does.

use rwkvc_ir::graph::eval::eval;
use rwkvc_ir::graph::{Graph, parse, verify};
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline::{STANDARD, Selection, run};
use rwkvc_tests::header::FileTest;
use rwkvc_tests::tolerance::Tolerance;
use rwkvc_tests::values::Values;

use super::{folder, with_snapshots};

/// These move and drop ops but change none; the others may add in another order.
const EXACT: &[&str] = &["fold-constants", "fold-ln0", "cse", "dce"];

/// Batch and time of each comparison.
const SIZES: [(usize, usize); 3] = [(1, 1), (1, 5), (2, 5)];

fn read(file: &FileTest) -> Graph {
    parse(&file.body).unwrap_or_else(|e| panic!("{}: {e} (lines after the header)", file.name))
}

/// What the passes of a file leave, and the number of rewrites.
fn rewritten(file: &FileTest, graph: Graph) -> (Graph, u64) {
    let names = file.passes().expect("the test is `passes`");
    let selection = Selection::only(&names).unwrap_or_else(|e| panic!("{}: {e}", file.name));
    let selection = selection.with_settings(file.settings.clone());
    let mut fuel = Fuel::new(file.fuel);
    let graph =
        run(graph, &selection, &mut fuel, &mut |_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", file.name));
    (graph.into_inner(), fuel.used())
}

#[test]
fn before_and_after() {
    insta::glob!("../../filetests/passes", "*.rwir", |path| {
        let file = FileTest::read(path);
        let graph = verify(read(&file)).unwrap_or_else(|e| panic!("{}: {e}", file.name));
        let canonical = graph.to_string();
        if std::env::var_os("UPDATE_FILETESTS").is_some() && !removes_dead_code(&file) {
            std::fs::write(path, format!("{}{canonical}", file.header)).expect("the file can be written");
        } else if !removes_dead_code(&file) {
            assert_eq!(
                file.body, canonical,
                "{}: text as the printer writes it",
                file.name
            );
        }
        assert_eq!(read_again(&canonical), canonical, "{}: round trip", file.name);

        let before = graph.into_inner();
        let (after, rewrites) = rewritten(&file, before.clone());
        let text = after.to_string();
        assert_eq!(read_again(&text), text, "{}: round trip of the result", file.name);
        compare(&file, &before, &after);
        if let Some(fuel) = file.fuel {
            assert!(
                rewrites <= fuel,
                "{}: {rewrites} rewrites with fuel {fuel}",
                file.name
            );
        }
        if file.unchanged {
            assert_eq!(text, canonical, "{}: the passes must not fire", file.name);
            assert_eq!(rewrites, 0, "{}: nothing was rewritten", file.name);
        } else {
            let changed = text != canonical || after.node_count() != before.node_count();
            assert!(changed, "{}: the passes must fire", file.name);
            with_snapshots("passes", || insta::assert_snapshot!("after", text));
        }
    });
}

/// Dead code is the only thing that text of the printer cannot show, because it walks from the outputs.
fn removes_dead_code(file: &FileTest) -> bool {
    file.passes() == Some(vec!["dce"])
}

fn read_again(text: &str) -> String {
    verify(parse(text).unwrap_or_else(|e| panic!("{e}\n{text}")))
        .expect("it verifies")
        .to_string()
}

fn compare(file: &FileTest, before: &Graph, after: &Graph) {
    let passes = file.passes().unwrap_or_default();
    let tolerance = match file.tolerance {
        Some(tolerance) => tolerance,
        None if passes.iter().all(|p| EXACT.contains(p)) => Tolerance::Exact,
        None => Tolerance::Close(1e-12),
    };
    for (seed, (batch, time)) in (1..).zip(SIZES) {
        let values = Values::random(before, batch, time, seed);
        let expected = eval(before, &values.bindings()).unwrap_or_else(|e| panic!("{}: {e}", file.name));
        let found = eval(after, &values.bindings()).unwrap_or_else(|e| panic!("{}: {e}", file.name));
        assert_eq!(expected.len(), found.len(), "{}: as many outputs", file.name);
        for ((name, expected), (other, found)) in expected.iter().zip(&found) {
            assert_eq!(name, other, "{}: the order of the outputs", file.name);
            assert_eq!(expected.shape(), found.shape(), "{}: `{name}`", file.name);
            if let Err(e) = tolerance.check(found.values(), expected.values()) {
                panic!("{}, B={batch}, T={time}: `{name}`: {e}", file.name);
            }
        }
    }
}

#[test]
fn every_pass_has_a_filetest() {
    let files = FileTest::read_all(&folder("passes"), "rwir");
    for pass in STANDARD {
        let file = files.iter().find(|f| f.name == pass.name);
        let file = file.unwrap_or_else(|| panic!("filetests/passes/{}.rwir is missing", pass.name));
        assert_eq!(
            file.passes(),
            Some(vec![pass.name]),
            "{}: the file of a pass runs it alone",
            pass.name
        );
        assert!(
            !file.unchanged && file.fuel.is_none(),
            "{}: the file of a pass shows what it does",
            pass.name
        );
        assert!(!file.prose.is_empty(), "{}: it says what it shows", pass.name);
    }
}

/// Every pass that counts rewrites makes at least one in its file, and none where there is no fuel.
#[test]
fn every_pass_fires_in_a_filetest() {
    for file in FileTest::read_all(&folder("passes"), "rwir") {
        if file.unchanged || removes_dead_code(&file) {
            continue;
        }
        let (_, total) = rewritten(&file, read(&file));
        assert!(total > 0, "{}: no rewrite", file.name);
        let mut empty = file.clone();
        empty.fuel = Some(0);
        let (after, used) = rewritten(&empty, read(&file));
        assert_eq!(used, 0);
        assert_eq!(
            after.to_string(),
            read(&file).to_string(),
            "{}: without fuel",
            file.name
        );
    }
}

/// Every amount of fuel gives that many rewrites and the same values.
#[test]
fn every_amount_of_fuel_keeps_the_values_of_each_file() {
    for file in FileTest::read_all(&folder("passes"), "rwir") {
        let graph = read(&file);
        let (_, total) = rewritten(&file, graph.clone());
        for fuel in 0..=total {
            let mut limited = file.clone();
            limited.fuel = Some(fuel);
            let (after, used) = rewritten(&limited, graph.clone());
            assert_eq!(used, fuel, "{}: rewrites with fuel {fuel}", file.name);
            compare(&limited, &graph, &after);
        }
    }
}
