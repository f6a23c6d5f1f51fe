//! The weight buffers of a plan: each once, whatever launches read it.

use std::collections::HashMap;

use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Op;
use rwkvc_ir::graph::{Graph, Value};

use super::error::GraphFault;
use super::names::weight_name;
use super::types::{Source, Weight};
use super::values::fixed_shape;
use crate::storage::{Layout, Packing, Part};

/// Weight buffers in the order of their first use.
#[derive(Debug, Default)]
pub(super) struct Weights {
    all: Vec<Weight>,
    numbers: HashMap<Key, usize>,
}

/// What makes two buffers the same: how they are arranged, and what is computed into them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    layout: Layout,
    keeps_format: bool,
    /// The text of the graph over weights. It is canonical: equal computations give equal text.
    value: String,
}

impl Weights {
    /// The buffer of a value that depends only on weights. Matrices keep the format they are stored in; vectors
    /// become f32, which costs little and spares every kernel the conversion.
    pub(super) fn whole(
        &mut self,
        graph: &Graph,
        value: Value,
        keeps_format: bool,
        layout: Layout,
    ) -> Result<usize, GraphFault> {
        let part = graph.extract(value);
        let key = Key {
            layout,
            keeps_format,
            value: part.to_string(),
        };
        if let Some(&index) = self.numbers.get(&key) {
            return Ok(index);
        }
        let ty = graph.ty(value);
        let shape = fixed_shape(ty)?;
        let dtype = if keeps_format { ty.dtype } else { DType::F32 };
        let source = match graph.op(value.node) {
            Op::Param(p) if dtype == ty.dtype => Source::Stored(p.name.clone()),
            _ => Source::Computed(part),
        };
        let weight = Weight {
            name: weight_name(graph, value),
            dtype,
            shape: layout.shape(shape),
            source,
            layout,
            codes: None,
        };
        Ok(self.add(key, weight))
    }

    /// The buffer of a part of a quantised matrix.
    pub(super) fn packed(
        &mut self,
        graph: &Graph,
        value: Value,
        part: Part,
        width: i64,
    ) -> Result<usize, GraphFault> {
        let Op::Quantize(quantize) = graph.op(value.node) else {
            return Err(GraphFault::NotQuantised(weight_name(graph, value)));
        };
        let packing = Packing::of(quantize, width);
        let exact = graph.operands(value.node)[0];
        let ty = graph.ty(exact);
        let Ok(matrix) = <[usize; 2]>::try_from(fixed_shape(ty)?) else {
            return Err(GraphFault::NotAMatrix(ty.to_string()));
        };
        let layout = Layout::Packed {
            packing,
            matrix,
            part,
        };
        let key = Key {
            layout,
            keeps_format: true,
            value: graph.extract(value).to_string(),
        };
        if let Some(&index) = self.numbers.get(&key) {
            return Ok(index);
        }
        let codes = match part {
            Part::Codes => None,
            Part::Scales | Part::Offsets | Part::Sums => {
                Some(self.packed(graph, value, Part::Codes, width)?)
            }
        };
        let source = match graph.op(exact.node) {
            Op::Param(p) => Source::Stored(p.name.clone()),
            _ => Source::Computed(graph.extract(exact)),
        };
        let name = weight_name(graph, exact);
        let weight = Weight {
            name: format!("{name} ({} {})", packing.format, part.name()),
            dtype: part.of_weights(packing.format, 0).0,
            shape: packing.shape(matrix, part),
            source,
            layout,
            codes,
        };
        Ok(self.add(key, weight))
    }

    /// The buffer of a number.
    pub(super) fn get(&self, index: usize) -> &Weight {
        &self.all[index]
    }

    pub(super) fn into_all(self) -> Vec<Weight> {
        self.all
    }

    fn add(&mut self, key: Key, weight: Weight) -> usize {
        let index = self.all.len();
        self.all.push(weight);
        self.numbers.insert(key, index);
        index
    }
}
