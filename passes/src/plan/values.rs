//! What the planner knows of a value of the graph: whose buffer it shares, and how its elements are stored.

use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Dim, Graph, TensorType, Value};
use rwkvc_ir::kernel::Extent;

use super::error::GraphFault;
use crate::schedule::Tensor;

/// The value whose buffer a value is.
pub(super) fn root(graph: &Graph, mut value: Value) -> Value {
    while !graph.is_constant(value)
        && let Some(viewed) = viewed(graph, value)
    {
        value = viewed;
    }
    value
}

/// The operand of which a value is another view: of a reshape, and of a rounding that is done where the operand is stored.
pub(super) fn viewed(graph: &Graph, value: Value) -> Option<Value> {
    match graph.op(value.node) {
        op if op.is_view() => Some(graph.operands(value.node)[0]),
        Op::ToBf16(_) => Some(graph.operands(value.node)[0]).filter(|&x| is_stored_as_bf16(graph, x)),
        _ => None,
    }
}

/// Whether a value is computed and is bf16.
pub(super) fn is_narrow(graph: &Graph, value: Value) -> bool {
    !graph.is_constant(value) && graph.ty(value).dtype == DType::BF16
}

/// Whether the buffer of an f32 value has its elements as bf16: it is computed here, and read in no other form.
fn is_stored_as_bf16(graph: &Graph, mut value: Value) -> bool {
    fn is_read_as_bf16(graph: &Graph, value: Value) -> bool {
        let users = graph.users(value);
        let is_output = graph.outputs().iter().any(|(_, output)| *output == value);
        let mut reads = users.iter().map(|&(user, _)| match graph.op(user) {
            Op::ToBf16(_) => true,
            op if op.is_view() => is_read_as_bf16(graph, graph.value(user, 0)),
            _ => false,
        });
        !is_output && !users.is_empty() && reads.all(|r| r)
    }
    while graph.op(value.node).is_view() {
        value = graph.operands(value.node)[0];
    }
    let is_computed = !matches!(graph.op(value.node), Op::Input(_)) && !graph.is_constant(value);
    is_computed && graph.ty(value).dtype == DType::F32 && is_read_as_bf16(graph, value)
}

/// Whether a weight is used as a matrix, which keeps its stored format.
pub(super) fn keeps_format(graph: &Graph, value: Value) -> bool {
    let users = graph.users(value);
    users
        .iter()
        .any(|&(user, operand)| graph.op(user).reads_matrix(operand))
}

/// The shape of a value for a schedule. Tokens of one state and members of a batch are both counted in `T`.
pub(super) fn tensor(graph: &Graph, value: Value) -> Result<Tensor, GraphFault> {
    let ty: &TensorType = graph.ty(value);
    if ty.shape.contains(&Dim::Batch) && ty.shape.contains(&Dim::Time) {
        return Err(GraphFault::Shape(ty.to_string()));
    }
    let dim = |d: &Dim| match d {
        Dim::Fixed(n) => Extent::fixed(*n as i64),
        Dim::Time | Dim::Batch => Extent::per_token(1),
    };
    let shape = ty.shape.iter().map(dim).collect();
    let is_weight = graph.is_constant(value);
    let quantized = match graph.op(value.node) {
        Op::Quantize(quantize) => Some(quantize.clone()),
        _ => None,
    };
    let dtype = if is_weight && !keeps_format(graph, value) {
        DType::F32
    } else if is_stored_as_bf16(graph, value) {
        DType::BF16
    } else {
        ty.dtype
    };
    Ok(Tensor {
        dtype,
        shape,
        quantized,
    })
}

/// The axes of a weight.
pub(super) fn fixed_shape(ty: &TensorType) -> Result<Vec<usize>, GraphFault> {
    let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.as_fixed()).collect();
    shape.ok_or_else(|| GraphFault::WeightShape(ty.to_string()))
}
