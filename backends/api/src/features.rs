//! What schedules need to know of a target as seen through one backend.

use crate::{Target, Tuning};

/// What the schedules may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// A CPU: iterations of the parallel loop run in ranges, one thread each.
    Cpu(CpuFeatures),
    /// A GPU: iterations of the parallel loop are blocks of threads.
    Gpu(GpuFeatures),
}

/// What schedules may use on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFeatures {
    /// Lanes of the widest f32 vector register the backend can use (4, 8 or 16).
    pub f32_lanes: u32,
    /// Vector registers.
    pub vector_registers: u32,
    /// Whether a prefetch is worth emitting.
    pub prefetch: bool,
    /// What was measured to be fastest, or else what is good everywhere.
    pub tuning: Tuning,
}

impl CpuFeatures {
    /// A CPU of which nothing was measured.
    pub const fn new(f32_lanes: u32, vector_registers: u32, prefetch: bool) -> Self {
        CpuFeatures {
            f32_lanes,
            vector_registers,
            prefetch,
            tuning: Tuning::of(f32_lanes, vector_registers),
        }
    }
}

/// What schedules may use on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuFeatures {
    /// Threads of every block: all kernels of a plan have the same, so that one launch can run them all.
    pub threads: u32,
    /// Threads that run in step and can exchange registers.
    pub warp: u32,
    /// Bytes of shared memory that a block may declare.
    pub shared_bytes: u32,
}

impl GpuFeatures {
    /// What every generation has.
    pub const PORTABLE: GpuFeatures = GpuFeatures {
        threads: 256,
        warp: 32,
        shared_bytes: 48 * 1024,
    };

    /// What the generation of a target has; `None` for a target that is no generation of GPUs.
    pub fn of(target: &Target) -> Option<Self> {
        let newest = GENERATIONS.iter().rev().find(|(name, _)| target.has(name));
        newest.map(|(_, features)| *features)
    }
}

/// The generations, oldest first. Kernels use what all of them have.
const GENERATIONS: &[(&str, GpuFeatures)] = &[
    ("sm_80", GpuFeatures::PORTABLE),
    ("sm_86", GpuFeatures::PORTABLE),
    ("sm_89", GpuFeatures::PORTABLE),
    ("sm_90", GpuFeatures::PORTABLE),
    ("sm_100", GpuFeatures::PORTABLE),
    ("sm_120", GpuFeatures::PORTABLE),
];

#[cfg(test)]
mod tests {
    use rwkvc_abi::Arch;

    use super::*;

    #[test]
    fn every_generation_has_a_row() {
        let names: Vec<_> = Arch::Cuda.extensions().iter().map(|e| e.name).collect();
        let rows: Vec<_> = GENERATIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(rows, names);
    }
}
