//! What a plan is made of. Programs, launches and arguments are those of the contract with the runtime, `rwkvc-abi`.

use rwkvc_abi::{KernelInfo, Program, ProgramKind, StateSlot, WeightInfo};
use rwkvc_ir::graph::{Dim, Graph};
use rwkvc_ir::kernel::Kernel;
use rwkvc_ir::{DType, Verified};

use super::kernels::kernel_info;
use crate::storage::Layout;

/// One shape of the step, to be planned.
pub struct Shape<'g> {
    /// Which program it becomes.
    pub kind: ProgramKind,
    /// The graph, with its batch or its time fixed to 1.
    pub graph: &'g Graph,
    /// Capacity of a call: tokens of one state, or members of a batch with one token each.
    pub max_tokens: usize,
}

impl Shape<'_> {
    /// How many states one call can advance: more than one if the batch is free.
    pub(super) fn states(&self) -> u64 {
        let inputs = self.graph.inputs();
        let is_batch = inputs.iter().any(|(_, ty)| ty.shape.contains(&Dim::Batch));
        if is_batch { self.max_tokens as u64 } else { 1 }
    }
}

/// Kernels, launches and buffers of all shapes of the step.
#[derive(Debug, Default)]
pub struct Plan {
    /// The kernels, each once, with unique names.
    pub kernels: Vec<Verified<Kernel>>,
    /// The weight buffers.
    pub weights: Vec<Weight>,
    /// The parts of the state, in the order of the graph's inputs.
    pub state: Vec<StateSlot>,
    /// Bytes of scratch memory that any program needs.
    pub arena_bytes: u64,
    /// The programs, in the order of the shapes.
    pub programs: Vec<Program>,
}

impl Plan {
    /// Gives a part of the state its value in a fresh state: the only output of a graph over weights.
    pub fn set_initial(&mut self, state: usize, name: String, value: Graph) {
        let slot = &mut self.state[state];
        slot.init = Some(self.weights.len());
        self.weights.push(Weight {
            name,
            dtype: DType::F32,
            shape: slot.shape.clone(),
            source: Source::Computed(value),
            layout: Layout::RowMajor,
            codes: None,
        });
    }

    /// What the runtime is told of the kernels; `threads` of a block on a GPU, 0 on a CPU.
    pub fn kernel_infos(&self, threads: u32) -> Vec<KernelInfo> {
        self.kernels.iter().map(|k| kernel_info(k, threads)).collect()
    }

    /// What the runtime is told of the weights, before they have places.
    pub fn weight_infos(&self) -> Vec<WeightInfo> {
        self.weights.iter().map(Weight::info).collect()
    }

    /// The program of a kind.
    pub fn program(&self, kind: ProgramKind) -> Option<&Program> {
        self.programs.iter().find(|p| p.kind == kind)
    }
}

/// A weight buffer: what the kernels read.
#[derive(Debug)]
pub struct Weight {
    /// Official names of the weights it is made of, joined by ` + `.
    pub name: String,
    /// How its elements are stored.
    pub dtype: DType,
    /// Its shape, as it is arranged.
    pub shape: Vec<usize>,
    /// Where its bytes come from.
    pub source: Source,
    /// How they are arranged.
    pub layout: Layout,
    /// The weight buffer with the codes of the same quantised matrix, before this one, if this is another part of it.
    pub codes: Option<usize>,
}

impl Weight {
    /// The bytes of the buffer.
    pub fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.dtype.size()) as u64
    }

    /// Arranges its elements, which lie row by row, into zeroed memory of [`Self::bytes`].
    pub fn arrange(&self, rows: &[u8], into: &mut [u8]) {
        // Of [panels, columns, width].
        let columns = self.shape.get(1).copied().unwrap_or(1);
        self.layout.arrange(rows, columns, self.dtype.size(), into);
    }

    fn info(&self) -> WeightInfo {
        WeightInfo {
            name: self.name.clone(),
            dtype: self.dtype.name().into(),
            shape: self.shape.clone(),
            offset: 0,
            bytes: 0,
        }
    }
}

/// Where the bytes of a weight buffer come from.
#[derive(Debug)]
pub enum Source {
    /// A weight of the model, as it is stored.
    Stored(String),
    /// The only output of a graph over weights, computed at compile time.
    Computed(Graph),
}
