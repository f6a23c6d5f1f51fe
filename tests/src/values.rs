//! Random weights and inputs for a graph, the same for the same seed.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rwkvc_ir::DType;
use rwkvc_ir::graph::eval::{Bindings, Tensor};
use rwkvc_ir::graph::{Dim, Graph};

/// What a graph is evaluated on.
#[derive(Clone, Debug)]
pub struct Values {
    /// Weights as they are stored, by name.
    pub params: HashMap<String, (DType, Vec<u8>)>,
    /// Inputs, by name; floats are f32 values, tokens whole numbers.
    pub inputs: Vec<(String, Tensor<f64>)>,
}

impl Values {
    /// Weights and inputs of `graph` for `batch` sequences of `time` tokens, between -1 and 1. Tokens are rows of every
    /// table that is looked up.
    ///
    /// # Panics
    /// If a weight has a symbolic length.
    pub fn random(graph: &Graph, batch: usize, time: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut params = HashMap::new();
        for (name, ty) in graph.params() {
            let n = ty.elements().expect("weights have known lengths");
            let mut bytes = vec![0; n * ty.dtype.size()];
            for i in 0..n {
                ty.dtype
                    .write(&mut bytes, i, rng.random_range(-1.0f32..1.0).into());
            }
            params.insert(name, (ty.dtype, bytes));
        }
        let rows = |node| graph.ty(graph.operands(node)[0]).shape[0].as_fixed();
        let vocabulary = graph.nodes_of("embed").into_iter().filter_map(rows).min();
        let length = |d: &Dim| match d {
            Dim::Fixed(n) => *n,
            Dim::Batch => batch,
            Dim::Time => time,
        };
        let mut inputs = vec![];
        for (name, ty) in graph.inputs() {
            let shape: Vec<usize> = ty.shape.iter().map(length).collect();
            let n = shape.iter().product();
            let value = |rng: &mut ChaCha8Rng| match ty.dtype {
                DType::I32 => rng.random_range(0..vocabulary.unwrap_or(2)) as f64,
                _ => rng.random_range(-1.0f32..1.0).into(),
            };
            let values = (0..n).map(|_| value(&mut rng)).collect();
            inputs.push((name, Tensor::new(shape, values)));
        }
        Values { params, inputs }
    }

    /// For the evaluator.
    pub fn bindings(&self) -> Bindings<'_, f64> {
        self.inputs
            .iter()
            .fold(Bindings::new(&self.params), |b, (name, value)| {
                b.with(name, value.clone())
            })
    }
}
