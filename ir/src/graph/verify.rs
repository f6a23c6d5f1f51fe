//! The verifier.

use std::collections::{HashMap, HashSet};

use super::walk::Cycle;
use super::{Graph, GraphError, Op, TensorType, Value, Verified};

/// Proves that a graph is well formed: every operand exists, no value depends on itself, each result has the type that
/// follows from the operands, inputs and outputs have unique names, and a weight has one, fixed type.
///
/// # Errors
/// The first violation found.
pub fn verify(graph: Graph) -> Result<Verified<Graph>, GraphError> {
    names(&graph)?;
    for &(_, value) in &graph.outputs {
        graph.get(value)?;
    }
    let all: Vec<Value> = graph
        .nodes
        .node_indices()
        .map(|n| graph.value(n.into(), 0))
        .collect();
    let (nodes, cycle) = graph.needed_by(&all);
    if let Some(Cycle(node)) = cycle {
        return Err(GraphError::Cycle {
            node,
            op: graph.op(node).mnemonic(),
        });
    }
    let mut weights: HashMap<&str, &TensorType> = HashMap::new();
    for node in nodes {
        let op = graph.op(node);
        let operands = graph.operands(node);
        let types = operands
            .iter()
            .map(|&v| graph.get(v).cloned())
            .collect::<Result<Vec<_>, _>>()?;
        let inferred = op.infer(&types).map_err(|error| GraphError::Type {
            op: op.mnemonic(),
            error,
        })?;
        if inferred.len() != graph.results(node) {
            let (found, expected) = (graph.results(node), inferred.len());
            return Err(GraphError::ResultCount {
                op: op.mnemonic(),
                found,
                expected,
            });
        }
        for (i, expected) in inferred.into_iter().enumerate() {
            let value = graph.value(node, i);
            let found = graph.ty(value);
            if *found != expected {
                let found = found.clone();
                return Err(GraphError::ResultType {
                    op: op.mnemonic(),
                    value,
                    found,
                    expected,
                });
            }
        }
        if let Op::Param(param) = op {
            let (name, ty) = (param.name.as_str(), &param.ty);
            if ty.elements().is_none() {
                return Err(GraphError::SymbolicWeight {
                    name: name.into(),
                    ty: ty.clone(),
                });
            }
            let first = *weights.entry(name).or_insert(ty);
            if first != ty {
                let (first, second) = (first.clone(), ty.clone());
                return Err(GraphError::WeightTypes {
                    name: name.into(),
                    first,
                    second,
                });
            }
        }
    }
    Ok(Verified::assume(graph))
}

fn names(graph: &Graph) -> Result<(), GraphError> {
    let mut seen = HashSet::new();
    for (name, _) in graph.inputs() {
        if !seen.insert(name.clone()) {
            return Err(GraphError::DuplicateInput(name));
        }
    }
    let mut seen = HashSet::new();
    for (name, _) in &graph.outputs {
        if !seen.insert(name) {
            return Err(GraphError::DuplicateOutput(name.clone()));
        }
    }
    Ok(())
}
