//! Why a graph cannot be planned.

use rwkvc_ir::graph::GraphError;
use rwkvc_ir::kernel::verify::KernelError;

use crate::schedule::ScheduleError;

/// Why a graph cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A graph does not have the form of a step.
    #[error("graph `{graph}`: {reason}")]
    Graph {
        /// The graph.
        graph: String,
        /// What is the matter.
        reason: GraphFault,
    },
    /// A schedule produced a kernel that does not verify: a bug of the schedule.
    #[error("the schedule of `{op}` produced an invalid kernel: {source}\n{text}")]
    Kernel {
        /// The op.
        op: String,
        /// What is wrong.
        source: KernelError,
        /// The kernel.
        text: String,
    },
}

/// What keeps a graph from being a step.
#[derive(Debug, thiserror::Error)]
pub enum GraphFault {
    /// An op has no kernels on the target.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// An op without a schedule cannot be decomposed.
    #[error(transparent)]
    Decompose(#[from] GraphError),
    /// An output is bf16.
    #[error("output `{0}` is rounded to bf16, expected f32")]
    NarrowOutput(String),
    /// A value depends on both the batch and the time.
    #[error("a value is {0}: the batch or the time must be fixed before planning")]
    Shape(String),
    /// A part of the state has a shape that depends on the call.
    #[error("state `{name}` is {ty}, expected a fixed shape")]
    StateShape {
        /// The part.
        name: String,
        /// Its type.
        ty: String,
    },
    /// The shapes of a step have different states.
    #[error("its state differs from that of the shapes before it")]
    OtherState,
    /// The output of a part of the state does not end where the part lies.
    #[error("the next value of state `{0}` is not an update in place")]
    NotInPlace(String),
    /// An op updates what is no state.
    #[error("`{0}` updates a value that is not an input")]
    UpdatesNoInput(String),
    /// A state is read after its update.
    #[error("`{reader}` reads state `{state}` after it was updated")]
    ReadAfterUpdate {
        /// The op.
        reader: String,
        /// The part of the state.
        state: String,
    },
    /// The update of a part of the state is not the output that belongs to it.
    #[error("the next value of state `{0}` is not the output of that name")]
    NotTheOutput(String),
    /// A weight has a shape that depends on the call.
    #[error("a weight is {0}, expected a fixed shape")]
    WeightShape(String),
    /// A schedule asks for codes of what has none.
    #[error("`{0}` is not quantised")]
    NotQuantised(String),
    /// What is quantised is no matrix.
    #[error("a quantised weight is {0}, expected a matrix")]
    NotAMatrix(String),
}
