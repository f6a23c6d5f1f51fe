//! What measurements have in common.

pub mod gpu;

use rwkvc_abi::{Arg, Launch, Manifest, Program};
use serde::{Deserialize, Serialize};

/// Median, least and most of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the samples are not above it.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of samples; `None` of none.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let (min, max) = (*samples.first()?, *samples.last()?);
        Some(Spread {
            median: samples[samples.len() / 2],
            min,
            max,
        })
    }
}

/// A kernel over one call of a program.
#[derive(Clone, Debug, Serialize)]
pub struct KernelRow {
    /// Its symbol.
    pub kernel: String,
    /// How often the program launches it.
    pub calls: usize,
    /// Weight bytes that all these launches read.
    pub bytes: u64,
    /// The microseconds of all these launches.
    pub us: f64,
    /// Weight bytes a second.
    pub gb_s: f64,
    /// Of the time of all launches.
    pub share_of_step: f64,
}

/// The time of each kernel in a call, the longest first: `times` has the nanoseconds of each launch over all `calls`.
pub fn kernel_rows(manifest: &Manifest, program: &Program, times: &[u64], calls: u64) -> Vec<KernelRow> {
    let total: u64 = times.iter().sum();
    let calls = calls.max(1) as f64;
    let mut rows: Vec<KernelRow> = vec![];
    for (launch, &ns) in program.launches.iter().zip(times) {
        let kernel = &manifest.kernels[launch.kernel].symbol;
        let row = match rows.iter_mut().position(|r| r.kernel == *kernel) {
            Some(i) => &mut rows[i],
            None => {
                let kernel = kernel.clone();
                rows.push(KernelRow {
                    kernel,
                    calls: 0,
                    bytes: 0,
                    us: 0.0,
                    gb_s: 0.0,
                    share_of_step: 0.0,
                });
                rows.last_mut().expect("just pushed")
            }
        };
        row.calls += 1;
        row.bytes += launch.weight_bytes;
        row.us += ns as f64 / 1e3 / calls;
    }
    for row in &mut rows {
        row.gb_s = if row.us > 0.0 {
            row.bytes as f64 / 1e3 / row.us
        } else {
            0.0
        };
        row.share_of_step = row.us * 1e3 * calls / total.max(1) as f64;
    }
    rows.sort_by(|a, b| b.us.total_cmp(&a.us));
    rows
}

/// Operations of the products with weights for some tokens, in calls of as many as the program takes: two for each weight
/// and token. Only of weights that are floats.
pub fn arithmetic(manifest: &Manifest, program: &Program, tokens: usize) -> Option<f64> {
    let launches = program.launches.iter();
    launches
        .map(|l| arithmetic_of_launch(manifest, program, l, tokens))
        .sum()
}

/// The same of one of its launches.
pub fn arithmetic_of_launch(
    manifest: &Manifest,
    program: &Program,
    launch: &Launch,
    tokens: usize,
) -> Option<f64> {
    // Products of codes are of integers.
    if manifest.weights.iter().any(|w| w.dtype == "i8") {
        return None;
    }
    let weights = launch.args.iter().filter_map(|arg| match *arg {
        Arg::Weight(i) => manifest.weights.get(i),
        _ => None,
    });
    let (mut bytes, mut elements) = (0, 0f64);
    for weight in weights {
        bytes += weight.bytes;
        // Vectors are applied element by element.
        if weight.shape.len() < 2 {
            continue;
        }
        elements += weight.shape.iter().map(|&n| n as f64).product::<f64>();
    }
    // Tables are read in part, and nothing is multiplied with them.
    if launch.weight_bytes < bytes {
        return Some(0.0);
    }
    let params = &manifest.kernels[launch.kernel].params;
    let times = match params.iter().any(|p| p.bytes.per_token > 0) {
        true => tokens,
        false => tokens.div_ceil(program.max_tokens),
    };
    Some(2.0 * elements * times as f64)
}
