//! The memory roof of this machine, measured with code from the same backend.

use anyhow::{Result, bail};
use rwkvc::compile::Options;
use rwkvc_backend_api::Features;
use rwkvc_passes::schedule::roof_kernel;
use rwkvc_runtime::manifest::*;
use rwkvc_runtime::{Buffer, Model, State, Workspace, WorkspaceOptions};

/// 16 KiB values a task: 1 GiB in all, far more than the caches hold.
const TASKS: i64 = 16_384;

/// A model that only reads: once plainly, once with prefetch.
pub(crate) struct Roof {
    model: Model,
    workspace: Workspace,
    state: State,
    bytes: u64,
}

impl Roof {
    /// Compiles the reading kernel for the same target and threads.
    pub(crate) fn new(options: &Options<'_>, workspace: &WorkspaceOptions) -> Result<Self> {
        let Features::Cpu(features) = options.backend.features(&options.target) else {
            bail!("the roof of a GPU is measured by its runtime");
        };
        let kernels = [false, true].map(|prefetch| roof_kernel(TASKS, prefetch, &features));
        let object = options.backend.lower(&kernels, &options.target)?;
        let len = kernels[0].params[0].len.fixed.unsigned_abs();
        let fixed = |bytes: u64| Size {
            fixed: bytes,
            per_token: 0,
        };
        let param = |bytes, access| ParamInfo {
            bytes: fixed(bytes),
            access,
        };
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
                bytes_per_token: 4 * len,
                fingerprint: String::new(),
            },
            target: TargetInfo {
                arch: options.target.arch.name().into(),
                extensions: options.target.extensions.clone(),
            },
            backend: options.backend.name().into(),
            passes: vec![],
            kernels: kernels
                .into_iter()
                .map(|kernel| KernelInfo {
                    symbol: kernel.name,
                    grid: fixed(TASKS.unsigned_abs()),
                    threads: 0,
                    params: vec![param(4 * len, Access::Read), param(sums, Access::Write)],
                })
                .collect(),
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
                launches: (0..2)
                    .map(|kernel| Launch {
                        kernel,
                        args: vec![Arg::Weight(0), Arg::Arena(0)],
                        weight_bytes: 4 * len,
                        label: "roof".into(),
                    })
                    .collect(),
            }],
        };
        manifest.place_weights()?;
        let mut values = Buffer::zeroed(4 * len)?;
        // Written once, so that every page is a page of its own.
        values.floats_mut().fill(1.0);
        let model = Model::from_parts(manifest, &object, vec![values.into()])?;
        let (workspace, state) = (model.workspace(workspace)?, model.new_state()?);
        Ok(Roof {
            model,
            workspace,
            state,
            bytes: 4 * len,
        })
    }

    /// GB/s of the fastest of four readings, two of them with prefetch.
    pub(crate) fn measure(&mut self) -> Result<f64> {
        let mut best = 0f64;
        for _ in 0..2 {
            let mut times = [0; 2];
            self.model
                .step_profiled(&mut self.workspace, &mut self.state, 0, &mut times)?;
            let fastest = times.into_iter().min().unwrap_or(0).max(1);
            best = best.max(self.bytes as f64 / fastest as f64);
        }
        Ok(best)
    }
}
