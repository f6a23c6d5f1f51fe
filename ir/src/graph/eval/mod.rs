//! The reference evaluator: plain loops, in f32 or f64.
//!
//! Weights are read where they lie, row by row; only what a step uses is converted.
//!
//! **Invariant:** a fused op is evaluated by its decomposition, so it cannot mean anything else.

mod data;
pub(crate) mod elementwise;
mod real;

use std::collections::HashMap;

pub(crate) use data::Data;
pub use data::Tensor;
pub use real::Real;
pub(crate) use real::{dot, total};

use super::{Dim, Graph, GraphError, NodeId, TensorType, Value};
use crate::DType;

/// A weight as it lies in memory, row-major and little-endian.
#[derive(Clone, Copy, Debug)]
pub struct ParamView<'a> {
    /// The number format.
    pub dtype: DType,
    /// The elements.
    pub bytes: &'a [u8],
}

/// Where weights come from.
pub trait ParamSource {
    /// A weight by its official name.
    fn param(&self, name: &str) -> Option<ParamView<'_>>;
}

/// Weights in a map.
impl<S: std::hash::BuildHasher> ParamSource for HashMap<String, (DType, Vec<u8>), S> {
    fn param(&self, name: &str) -> Option<ParamView<'_>> {
        self.get(name)
            .map(|(dtype, bytes)| ParamView { dtype: *dtype, bytes })
    }
}

/// No weights.
impl ParamSource for () {
    fn param(&self, _: &str) -> Option<ParamView<'_>> {
        None
    }
}

/// What a graph is evaluated on.
pub struct Bindings<'a, F> {
    params: &'a dyn ParamSource,
    inputs: HashMap<String, Tensor<F>>,
}

impl<'a, F: Real> Bindings<'a, F> {
    /// These weights and no inputs.
    pub fn new(params: &'a dyn ParamSource) -> Self {
        Bindings {
            params,
            inputs: HashMap::new(),
        }
    }

    /// With an input; token ids are whole numbers.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: Tensor<F>) -> Self {
        self.inputs.insert(name.into(), value);
        self
    }
}

/// Why a graph cannot be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// An input without a value.
    #[error("input `{0}` has no value")]
    NoInput(String),
    /// An input whose value has another shape.
    #[error("input `{name}` is {found:?}, expected {expected}")]
    InputShape {
        /// The input.
        name: String,
        /// The shape of its value.
        found: Vec<usize>,
        /// Its type, with the symbolic lengths that other inputs have settled.
        expected: TensorType,
    },
    /// A weight that the source does not have.
    #[error("there is no weight `{0}`")]
    NoParam(String),
    /// A weight of another format or size.
    #[error("weight `{name}` is {bytes} bytes of {dtype}, expected {expected}")]
    ParamType {
        /// The weight.
        name: String,
        /// The number format of the source.
        dtype: DType,
        /// How much there is.
        bytes: usize,
        /// Its type in the graph.
        expected: TensorType,
    },
    /// A token that is not in the table.
    #[error("token {token} is not in a table of {rows} rows")]
    Token {
        /// The token.
        token: f64,
        /// The rows of the table.
        rows: usize,
    },
    /// A symbolic length that no input settles.
    #[error("no input has the axis `{0}`, so its length is not known")]
    UnknownLength(Dim),
    /// A fused op that does not decompose: a bug of its row.
    #[error("decomposition: {0}")]
    Graph(#[from] GraphError),
}

/// Computes the outputs of a graph, in order.
///
/// # Errors
/// If an input or weight is missing or has another shape, or a token is not in its table.
///
/// # Panics
/// If the graph does not verify.
pub fn eval<F: Real>(
    graph: &Graph,
    bindings: &Bindings<'_, F>,
) -> Result<Vec<(String, Tensor<F>)>, EvalError> {
    let env = Env::new(graph, bindings)?;
    let values: Vec<Value> = graph.outputs().iter().map(|(_, v)| *v).collect();
    let tensors = run(graph, &values, &env)?.into_iter().map(Data::into_tensor);
    Ok(graph
        .outputs()
        .iter()
        .map(|(name, _)| name.clone())
        .zip(tensors)
        .collect())
}

/// Computes one value that depends on weights and constants only.
///
/// # Errors
/// If it depends on an input, or a weight is missing or has another type.
///
/// # Panics
/// If the graph does not verify.
pub fn eval_const(graph: &Graph, value: Value, params: &dyn ParamSource) -> Result<Tensor<f32>, EvalError> {
    let env = Env {
        inputs: HashMap::new(),
        params,
        batch: None,
        time: None,
    };
    let mut results = run(graph, &[value], &env)?;
    Ok(results.remove(0).into_tensor())
}

/// What ops see of the bindings.
pub(crate) struct Env<'a, F> {
    inputs: HashMap<String, Data<'a, F>>,
    params: &'a dyn ParamSource,
    batch: Option<usize>,
    time: Option<usize>,
}

impl<'a, F: Real> Env<'a, F> {
    /// Checks the inputs and settles the symbolic lengths.
    fn new(graph: &Graph, bindings: &Bindings<'a, F>) -> Result<Self, EvalError> {
        let mut env = Env {
            inputs: HashMap::new(),
            params: bindings.params,
            batch: None,
            time: None,
        };
        for (name, ty) in graph.inputs() {
            let Some(value) = bindings.inputs.get(&name) else {
                return Err(EvalError::NoInput(name));
            };
            let found = value.shape();
            for (dim, &n) in ty.shape.iter().zip(found) {
                match dim {
                    Dim::Batch => _ = env.batch.get_or_insert(n),
                    Dim::Time => _ = env.time.get_or_insert(n),
                    Dim::Fixed(_) => {}
                }
            }
            let expected = ty.specialise(env.batch, env.time);
            if !found
                .iter()
                .map(|&n| Dim::Fixed(n))
                .eq(expected.shape.iter().copied())
                || !expected.is_valid()
            {
                return Err(EvalError::InputShape {
                    name,
                    found: found.to_vec(),
                    expected,
                });
            }
            env.inputs
                .insert(name, Data::dense(found.to_vec(), value.values().to_vec()));
        }
        Ok(env)
    }

    /// The value of an input.
    pub(crate) fn input(&self, name: &str) -> Result<Data<'a, F>, EvalError> {
        self.inputs
            .get(name)
            .cloned()
            .ok_or_else(|| EvalError::NoInput(name.into()))
    }

    /// A weight, where it lies.
    pub(crate) fn param(&self, name: &str, ty: &TensorType) -> Result<Data<'a, F>, EvalError> {
        let ParamView { dtype, bytes } = self
            .params
            .param(name)
            .ok_or_else(|| EvalError::NoParam(name.into()))?;
        let size = ty.elements().and_then(|n| n.checked_mul(dtype.size()));
        if dtype != ty.dtype || size != Some(bytes.len()) {
            let (name, bytes, expected) = (name.into(), bytes.len(), ty.clone());
            return Err(EvalError::ParamType {
                name,
                dtype,
                bytes,
                expected,
            });
        }
        Ok(Data::stored(self.shape(&ty.shape)?, dtype, bytes))
    }

    /// A shape with its symbolic lengths settled.
    pub(crate) fn shape(&self, shape: &[Dim]) -> Result<Vec<usize>, EvalError> {
        let settle = |d: &Dim| {
            d.specialise(self.batch, self.time)
                .as_fixed()
                .ok_or(EvalError::UnknownLength(*d))
        };
        shape.iter().map(settle).collect()
    }
}

/// Computes the results of a fused op by its decomposition.
pub(crate) fn eval_decomposed<'a, F: Real>(
    decompose: impl FnOnce(&mut Graph, &[Value]) -> Result<Vec<Value>, GraphError>,
    operands: &[Data<'a, F>],
    env: &Env<'a, F>,
) -> Result<Vec<Data<'a, F>>, EvalError> {
    let mut graph = Graph::new("decomposition");
    let mut inputs = HashMap::new();
    let mut values = vec![];
    for (i, data) in operands.iter().enumerate() {
        let name = i.to_string();
        values.push(graph.add_input(&name, data.ty())?);
        inputs.insert(name, data.clone());
    }
    let results = decompose(&mut graph, &values)?;
    run(
        &graph,
        &results,
        &Env {
            inputs,
            params: env.params,
            batch: env.batch,
            time: env.time,
        },
    )
}

/// Computes some values, and lets go of each other one after its last use.
fn run<'a, F: Real>(
    graph: &Graph,
    values: &[Value],
    env: &Env<'a, F>,
) -> Result<Vec<Data<'a, F>>, EvalError> {
    let (order, _) = graph.needed_by(values);
    let mut last_use: HashMap<NodeId, usize> = HashMap::new();
    for (step, &node) in order.iter().enumerate() {
        last_use.extend(graph.operands(node).iter().map(|v| (v.node, step)));
    }
    last_use.extend(values.iter().map(|v| (v.node, order.len())));
    let mut ending: Vec<Vec<NodeId>> = vec![vec![]; order.len() + 1];
    for (node, step) in last_use {
        ending[step].push(node);
    }
    let mut known: HashMap<NodeId, Vec<Data<'a, F>>> = HashMap::new();
    for (step, &node) in order.iter().enumerate() {
        let operands: Vec<Data<'a, F>> = graph
            .operands(node)
            .iter()
            .map(|v| known[&v.node][v.result as usize].clone())
            .collect();
        known.insert(node, graph.op(node).eval(&operands, env)?);
        for done in &ending[step] {
            known.remove(done);
        }
    }
    Ok(values
        .iter()
        .map(|v| known[&v.node][v.result as usize].clone())
        .collect())
}
