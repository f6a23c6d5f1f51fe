//! Schedules: from one graph op to the kernels that compute it.
//!
//! A schedule chooses tiles, vector lanes and what runs in parallel, from the shapes and the target's [`Features`]. It
//! spells its loops in Kernel IR, which every backend emits.
//!
//! **Invariant:** iterations of a parallel loop touch disjoint outputs, and none reads what another writes.

mod broadcast;
mod cpu;
mod error;
mod gpu;
mod group;
mod head;
mod math;
mod rows;

pub use cpu::{PEAK_FLOPS_OF_A_LANE, peak_kernel, roof_kernel};
pub use error::ScheduleError;
pub(crate) use gpu::Prologue;
pub use gpu::{Sampler, SamplerBuffer, sampler};

use rwkvc_backend_api::{Features, GpuFeatures};
use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::{Emit, Member, Op, Quantize};
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Affine, Buf, Extent, Kernel};

use crate::storage::Part;

/// An operand or result as a kernel sees it: row-major, at most one dimension depends on the number of tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<Extent>,
    /// How it is stored, if not element by element.
    pub(crate) quantized: Option<Quantize>,
}

impl Tensor {
    /// Length of the last axis; 1 for a scalar.
    pub(crate) fn last(&self) -> i64 {
        self.shape.last().map_or(1, |d| d.fixed)
    }

    /// Product of all axes but the last.
    pub(crate) fn rows(&self) -> Extent {
        product(&self.shape[..self.shape.len().saturating_sub(1)])
    }

    /// The number of elements.
    pub(crate) fn len(&self) -> Extent {
        product(&self.shape)
    }
}

fn product(dims: &[Extent]) -> Extent {
    dims.iter()
        .fold(Extent::fixed(1), |n, d| match (n.as_fixed(), d.as_fixed()) {
            (Some(f), _) => Extent {
                fixed: d.fixed * f,
                per_token: d.per_token * f,
            },
            (None, Some(f)) => Extent {
                fixed: n.fixed * f,
                per_token: n.per_token * f,
            },
            (None, None) => unreachable!("the verifier allows one time dimension"),
        })
}

/// Which buffer a kernel parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The op's operand of this number.
    Operand(usize),
    /// The op's result of this number.
    Result(usize),
    /// The matrix that is the op's operand of this number, in [`Layout::Panels`] of this width.
    Panels { operand: usize, width: i64 },
    /// A part of the quantised matrix that is the op's operand of this number, in panels of this width.
    Packed { operand: usize, part: Part, width: i64 },
    /// A part of the quantised activations that are the op's operand of this number.
    OperandPart(usize, Part),
    /// A part of the quantised activations that are the op's result of this number.
    ResultPart(usize, Part),
    /// Memory of this many bytes that the kernels of one op share, by number; with any contents before the first.
    Scratch { number: usize, bytes: u64 },
}

/// A kernel and what to pass it.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    pub(crate) kernel: Kernel,
    pub(crate) args: Vec<Slot>,
}

/// Builds one kernel of an op: hands out its parameters in the order they are asked for.
pub(crate) struct Scope<'a, F> {
    pub(crate) b: Builder,
    pub(crate) features: &'a F,
    operands: &'a [Tensor],
    results: &'a [Tensor],
    args: Vec<Slot>,
}

impl<'a, F> Scope<'a, F> {
    pub(crate) fn new(name: &str, operands: &'a [Tensor], results: &'a [Tensor], features: &'a F) -> Self {
        Scope {
            b: Builder::new(name),
            features,
            operands,
            results,
            args: vec![],
        }
    }

    /// A parameter for an operand that is read.
    pub(crate) fn read(&mut self, name: &str, operand: usize) -> Buf {
        self.param(name, Slot::Operand(operand), Access::Read)
    }

    /// A parameter for an operand that is updated in place.
    pub(crate) fn update(&mut self, name: &str, operand: usize) -> Buf {
        self.param(name, Slot::Operand(operand), Access::ReadWrite)
    }

    /// A parameter for an operand that is only written.
    pub(crate) fn overwrite(&mut self, name: &str, operand: usize) -> Buf {
        self.param(name, Slot::Operand(operand), Access::Write)
    }

    /// A parameter for a result.
    pub(crate) fn write(&mut self, name: &str, result: usize) -> Buf {
        self.param(name, Slot::Result(result), Access::Write)
    }

    /// A parameter for a matrix in panels of `width` rows.
    pub(crate) fn panels(&mut self, name: &str, operand: usize, width: i64) -> Buf {
        let matrix = &self.operands[operand];
        let rows = (matrix.rows().fixed + width - 1) / width * width;
        self.args.push(Slot::Panels { operand, width });
        let len = Extent::fixed(rows * matrix.last());
        self.b.param(name, matrix.dtype, len, Access::Read)
    }

    /// A parameter for a part of a quantised matrix in panels of `width` rows.
    pub(crate) fn packed(&mut self, name: &str, operand: usize, part: Part, width: i64) -> Buf {
        let matrix = &self.operands[operand];
        let quantized = matrix.quantized.as_ref().expect("a quantised matrix");
        let rows = (matrix.rows().fixed + width - 1) / width * width;
        let (dtype, len) = part.of_weights(quantized.format, rows * matrix.last());
        self.args.push(Slot::Packed { operand, part, width });
        self.b.param(name, dtype, Extent::fixed(len), Access::Read)
    }

    /// A parameter for a part of quantised activations.
    pub(crate) fn read_part(&mut self, name: &str, operand: usize, part: Part) -> Buf {
        let (dtype, len) = part.of_activations(self.operands[operand].len());
        self.args.push(Slot::OperandPart(operand, part));
        self.b.param(name, dtype, len, Access::Read)
    }

    /// A parameter for a part of quantised activations that are a result.
    pub(crate) fn write_part(&mut self, name: &str, result: usize, part: Part) -> Buf {
        let (dtype, len) = part.of_activations(self.results[result].len());
        self.args.push(Slot::ResultPart(result, part));
        self.b.param(name, dtype, len, Access::Write)
    }

    /// A parameter for `len` integers of scratch memory.
    pub(crate) fn scratch(&mut self, name: &str, number: usize, len: i64, access: Access) -> Buf {
        let bytes = len.unsigned_abs() * DType::I32.size() as u64;
        self.args.push(Slot::Scratch { number, bytes });
        self.b.param(name, DType::I32, Extent::fixed(len), access)
    }

    fn param(&mut self, name: &str, slot: Slot, access: Access) -> Buf {
        let t = match slot {
            Slot::Result(i) => &self.results[i],
            Slot::Operand(i) => &self.operands[i],
            _ => unreachable!("the others have parameters of their own"),
        };
        self.args.push(slot);
        self.b.param(name, t.dtype, t.len(), access)
    }

    pub(crate) fn finish(self) -> Scheduled {
        Scheduled {
            kernel: self.b.finish(),
            args: self.args,
        }
    }
}

/// `reg * factor` as a position.
fn at(reg: rwkvc_ir::kernel::Reg, factor: i64) -> Affine {
    Affine::from(reg) * factor
}

/// What an op computes that works element by element; `None` for other ops.
fn elementwise_function(op: &Op) -> Option<(&'static str, Emit)> {
    match op {
        // Stores round to the format of the result.
        Op::ToBf16(_) => Some((op.mnemonic(), |_, x| x[0])),
        _ => op.emit().map(|emit| (op.mnemonic(), emit)),
    }
}

/// The kernels of one op, in launch order, for up to `most` tokens of a call.
pub(crate) fn schedule(
    op: &Op,
    operands: &[Tensor],
    results: &[Tensor],
    features: &Features,
    most: i64,
) -> Result<Vec<Scheduled>, ScheduleError> {
    match features {
        Features::Cpu(features) => cpu::schedule(op, operands, results, features),
        Features::Gpu(features) => gpu::schedule(op, operands, results, false, features, most),
    }
}

/// The kernels of a product on a GPU that takes its last but one operand to the place of its last one besides.
pub(crate) fn carrying(
    op: &Op,
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
    most: i64,
) -> Result<Vec<Scheduled>, ScheduleError> {
    gpu::schedule(op, operands, results, true, features, most)
}

/// The kernels of a group of products on a GPU with the `norm_shift_mix` that they multiply.
pub(crate) fn joined(
    prologue: &Prologue<'_>,
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
) -> Result<Vec<Scheduled>, ScheduleError> {
    gpu::joined(prologue, members, operands, results, features)
}
