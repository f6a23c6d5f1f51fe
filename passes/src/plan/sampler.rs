//! The program that chooses tokens on a GPU, where the logits are.

use rwkvc_abi::{Arg, Launch, Program, ProgramKind};
use rwkvc_backend_api::GpuFeatures;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::verify::verify;

use super::arena::Arena;
use super::{Plan, PlanError};
use crate::schedule::{SamplerBuffer, sampler};

impl Plan {
    /// Adds the program that chooses the next token of each of up to `states` states.
    ///
    /// # Errors
    /// If a kernel of the sampler does not verify, which is a bug of its schedule.
    pub fn add_sampler(
        &mut self,
        vocab: usize,
        states: usize,
        features: &GpuFeatures,
    ) -> Result<(), PlanError> {
        let sampler = sampler(vocab as i64, features);
        // What a step leaves in the arena is not needed any more.
        let mut arena = Arena::default();
        let scratch = sampler.scratch.iter().map(|&words| {
            let bytes = words.unsigned_abs() * states as u64 * DType::I32.size() as u64;
            Arg::Arena(arena.take(bytes))
        });
        let scratch: Vec<Arg> = scratch.collect();
        self.arena_bytes = self.arena_bytes.max(arena.size());
        let mut launches = vec![];
        for (kernel, buffers) in sampler.steps {
            let text = kernel.to_string();
            let kernel = verify(kernel).map_err(|source| PlanError::Kernel {
                op: "sample".into(),
                source,
                text,
            })?;
            let arg = |buffer: &SamplerBuffer| match *buffer {
                SamplerBuffer::Logits => Arg::Logits,
                SamplerBuffer::Options => Arg::Sampler,
                SamplerBuffer::Counts => Arg::Counts,
                SamplerBuffer::Tokens => Arg::Tokens,
                SamplerBuffer::Scratch(part) => scratch[part],
            };
            launches.push(Launch {
                kernel: self.kernels.len(),
                args: buffers.iter().map(arg).collect(),
                weight_bytes: 0,
                skips_zeros: false,
                label: "sample".into(),
            });
            self.kernels.push(kernel);
        }
        self.programs.push(Program {
            kind: ProgramKind::Sample,
            max_tokens: states,
            probes: vec![],
            launches,
        });
        Ok(())
    }
}
