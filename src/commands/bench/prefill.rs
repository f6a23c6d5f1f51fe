//! Prompts: what each kernel of their program costs, beside the arithmetic peak.

use rwkvc::measure::{arithmetic_of_launch, kernel_rows};
use rwkvc::tables::table;
use rwkvc_abi::{Manifest, Program};
use serde::Serialize;

/// A kernel over a prompt.
#[derive(Serialize)]
pub(super) struct PrefillRow {
    /// Its symbol.
    kernel: String,
    /// How often a call of the program launches it.
    calls: usize,
    /// Operations of the products with weights; absent for quantised weights.
    gflop: Option<f64>,
    /// The microseconds of all these launches.
    us: f64,
    gflop_s: Option<f64>,
    /// Of the arithmetic peak.
    peak_share: Option<f64>,
    /// Of the time of all launches.
    share_of_prompt: f64,
}

/// The kernels of a prompt of some tokens, the longest first: `times` has the nanoseconds of each launch over all `samples`.
pub(super) fn rows(
    manifest: &Manifest,
    program: &Program,
    tokens: usize,
    (times, samples): (&[u64], u64),
    peak: f64,
) -> Vec<PrefillRow> {
    let work_of = |kernel: &str| -> Option<f64> {
        let launches = program.launches.iter();
        let launches = launches.filter(|l| manifest.kernels[l.kernel].symbol == kernel);
        let works = launches.map(|l| arithmetic_of_launch(manifest, program, l, tokens));
        works.sum::<Option<f64>>().map(|work| work / 1e9)
    };
    let rows = kernel_rows(manifest, program, times, samples).into_iter();
    rows.map(|row| {
        let gflop = work_of(&row.kernel);
        let gflop_s = gflop.filter(|_| row.us > 0.0).map(|work| work / row.us * 1e6);
        PrefillRow {
            kernel: row.kernel,
            calls: row.calls,
            gflop,
            us: row.us,
            gflop_s,
            peak_share: gflop_s.map(|speed| speed / peak),
            share_of_prompt: row.share_of_step,
        }
    })
    .collect()
}

/// A table of the kernels.
pub(super) fn text(rows: &[PrefillRow]) -> String {
    let cells = |k: &PrefillRow| {
        let number = |n: Option<f64>, digits: usize| n.map_or("–".into(), |n| format!("{n:.digits$}"));
        vec![
            k.kernel.clone(),
            k.calls.to_string(),
            number(k.gflop, 2),
            format!("{:.1}", k.us),
            number(k.gflop_s, 0),
            k.peak_share
                .map_or("–".into(), |share| format!("{:.0} %", 100.0 * share)),
            format!("{:.1} %", 100.0 * k.share_of_prompt),
        ]
    };
    let head = ["kernel", "calls", "GFLOP", "µs", "GFLOP/s", "peak", "time"];
    table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}
