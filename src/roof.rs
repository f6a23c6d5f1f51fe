//! The roofs of this machine, measured with code from the same backend: how fast it reads, and how fast it multiplies and
//! adds.

use anyhow::{Result, bail};
use rwkvc_abi::*;
use rwkvc_backend_api::Features;
use rwkvc_ir::kernel::verify::verify;
use rwkvc_passes::plan::kernel_info;
use rwkvc_passes::schedule::{PEAK_FLOPS_OF_A_LANE, peak_kernel, roof_kernel};
use rwkvc_runtime::{Buffer, Model, Session, WorkspaceOptions};

use crate::compile::Options;

/// 16 KiB values a task: 1 GiB in all, far more than the caches hold.
const TASKS: i64 = 16_384;

/// Tasks of arithmetic: a few milliseconds in all.
const PEAK_TASKS: i64 = 192;

/// A model that only reads, once plainly, once with prefetch, and then only computes.
pub struct Roof {
    session: Session,
    bytes: u64,
    flops: f64,
}

/// What was measured at once.
#[derive(Clone, Copy, Debug)]
pub struct Roofs {
    /// GB/s.
    pub memory: f64,
    /// GFLOP/s; a product and a sum count one each.
    pub arithmetic: f64,
}

impl Roof {
    /// Compiles the kernels for the same target and threads.
    ///
    /// # Errors
    /// For a GPU, and if there is not enough memory: it takes 1 GiB.
    pub fn new(options: &Options<'_>, workspace: &WorkspaceOptions) -> Result<Self> {
        let Features::Cpu(features) = options.features()? else {
            bail!("the roof of a GPU is measured by its runtime");
        };
        let [plain, prefetched] = [false, true].map(|prefetch| roof_kernel(TASKS, prefetch, &features));
        let kernels = [plain, prefetched, peak_kernel(PEAK_TASKS, &features)];
        let kernels = kernels.map(verify).into_iter().collect::<Result<Vec<_>, _>>()?;
        let module = options.backend.lower(&kernels, &options.target)?;
        let len = kernels[0].params[0].len.fixed.unsigned_abs();
        let sums = 4 * TASKS.unsigned_abs();
        let mut manifest = Manifest {
            format: FORMAT_VERSION,
            producer: "roof".into(),
            model: ModelInfo {
                name: "roof".into(),
                n_layers: 0,
                width: 1,
                head_size: 1,
                vocab: 1,
                ffn: 1,
                parameters: len,
                dtype: "f32".into(),
                activations: "f32".into(),
                bytes_per_token: 4 * len,
                fingerprint: String::new(),
            },
            target: TargetInfo {
                arch: options.target.arch.name().into(),
                extensions: options.target.extensions.clone(),
            },
            backend: options.backend.name().into(),
            passes: vec![],
            schedule: Default::default(),
            kernels: kernels.iter().map(|kernel| kernel_info(kernel, 0)).collect(),
            weights: vec![WeightInfo {
                name: "values".into(),
                dtype: "f32".into(),
                shape: vec![usize::try_from(len)?],
                offset: 0,
                bytes: 0,
            }],
            state: vec![],
            arena_bytes: sums,
            programs: vec![Program {
                kind: ProgramKind::Decode,
                max_tokens: 1,
                probes: vec![],
                launches: [vec![Arg::Weight(0)], vec![Arg::Weight(0)], vec![]]
                    .into_iter()
                    .enumerate()
                    .map(|(kernel, reads)| Launch {
                        kernel,
                        weight_bytes: 4 * len * reads.len() as u64,
                        skips_zeros: false,
                        args: [reads, vec![Arg::Arena(0)]].concat(),
                        label: "roof".into(),
                    })
                    .collect(),
            }],
        };
        manifest.place_weights()?;
        let mut values = Buffer::zeroed(4 * len)?;
        // Written once, so that every page is a page of its own.
        values.floats_mut().fill(1.0);
        let model = Model::from_parts(manifest, module.bytes(), vec![values.into()])?;
        Ok(Roof {
            session: Session::new(&model, workspace)?,
            bytes: 4 * len,
            flops: PEAK_TASKS as f64 * PEAK_FLOPS_OF_A_LANE as f64 * f64::from(features.f32_lanes),
        })
    }

    /// The fastest of four readings, two of them with prefetch, and of two computations.
    ///
    /// # Errors
    /// If the launches cannot be measured.
    pub fn measure(&mut self) -> Result<Roofs> {
        let mut best = [u64::MAX; 2];
        for _ in 0..2 {
            let mut times = [0; 3];
            self.session.profile(ProgramKind::Decode, &[0], &mut times)?;
            let [plain, prefetched, computed] = times;
            for (best, time) in best.iter_mut().zip([plain.min(prefetched), computed]) {
                *best = time.max(1).min(*best);
            }
        }
        // Bytes and operations a nanosecond.
        Ok(Roofs {
            memory: self.bytes as f64 / best[0] as f64,
            arithmetic: self.flops / best[1] as f64,
        })
    }
}
