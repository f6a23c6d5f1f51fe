//! What measurements have in common.

pub mod gpu;

use rwkvc_runtime::manifest::{Manifest, Program};
use serde::Serialize;

/// Median, least and most of some samples.
#[derive(Clone, Copy, Debug, Serialize)]
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
