//! What `rwkvc bench` reports of a CPU.

use rwkvc::measure::{KernelRow, Spread};
use rwkvc::tables::table;
use serde::Serialize;

use super::variant::Measured;
use super::{batch, prefill};

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) backend: &'static str,
    pub(super) target: String,
    pub(super) threads: usize,
    /// Read bandwidth over four streams, measured between the samples.
    pub(super) roof_gb_s: f64,
    pub(super) roof: Spread,
    /// Products and sums of f32 in registers, measured between the samples.
    pub(super) peak_gflop_s: f64,
    pub(super) peak: Spread,
    pub(super) decode_tokens: usize,
    pub(super) prefill_tokens: usize,
    pub(super) samples: usize,
    pub(super) variants: Vec<Measured>,
}

/// The report for people.
pub(super) fn text(r: &Report) -> String {
    let mut text = format!(
        "{}: {} for {}, {} threads\nmemory roof {:.1} GB/s (least {:.1}), four streams, measured between the samples\n\
         arithmetic peak {:.0} GFLOP/s (least {:.0}), f32 in registers\n\n",
        r.model, r.backend, r.target, r.threads, r.roof_gb_s, r.roof.min, r.peak_gflop_s, r.peak.min
    );
    let first = r.variants.first().map_or(0.0, |v| v.decode.median);
    let cells = |v: &Measured| {
        vec![
            v.name.clone(),
            format!("{:.1}", v.decode.median),
            format!("{:.1}–{:.1}", v.decode.min, v.decode.max),
            format!("{:.2}", v.decode.median / first),
            v.prefill.map_or("–".into(), |p| format!("{:.1}", p.median)),
            v.prefill_peak_share
                .map_or("–".into(), |share| format!("{:.0} %", 100.0 * share)),
            format!("{:.1}", v.bytes_per_token as f64 / 1e6),
            format!("{:.1}", v.gb_s),
            format!("{:.0} %", 100.0 * v.roof_share),
            v.launches.to_string(),
            format!("{:.2}", v.compile_s),
        ]
    };
    let head = [
        "variant",
        "decode tok/s",
        "range",
        "×",
        "prefill tok/s",
        "peak",
        "MB/token",
        "GB/s",
        "roof",
        "launches",
        "compile s",
    ];
    text += &table(&head, &r.variants.iter().map(cells).collect::<Vec<_>>());
    for v in r.variants.iter().filter(|v| !v.batches.is_empty()) {
        text += &format!("\n{}, a token of each member of a batch\n", v.name);
        text += &batch::text(&v.batches);
    }
    for v in &r.variants {
        text += &kernels(&format!("{}, one decode step", v.name), &v.kernels);
        if !v.prefill_kernels.is_empty() {
            text += &format!("\n{}, a prompt of {} tokens\n", v.name, r.prefill_tokens);
            text += &prefill::text(&v.prefill_kernels);
        }
        if let Some(b) = v.batches.last() {
            text += &kernels(
                &format!("{}, one step of {} members", v.name, b.members),
                &b.kernels,
            );
        }
    }
    text
}

/// A table of the kernels, if there are any.
pub(super) fn kernels(title: &str, rows: &[KernelRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells = |k: &KernelRow| {
        vec![
            k.kernel.clone(),
            k.calls.to_string(),
            format!("{:.2}", k.bytes as f64 / 1e6),
            format!("{:.1}", k.us),
            format!("{:.1}", k.gb_s),
            format!("{:.1} %", 100.0 * k.share_of_step),
        ]
    };
    let head = ["kernel", "calls", "MB", "µs", "GB/s", "time"];
    format!("\n{title}\n") + &table(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}
