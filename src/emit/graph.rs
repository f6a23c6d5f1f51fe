//! The optimised decode graph.

use rwkvc::compile::graph;
use rwkvc_abi::ProgramKind;

use super::{ALL, Form, Write};

/// As text that `rwkvc opt` reads.
pub(super) const GRAPH: Form = Form {
    name: "graph",
    summary: "The optimised decode graph as text",
    devices: ALL,
    is_text: true,
    write: Write::Bytes(|model, options| {
        Ok(graph(model, ProgramKind::Decode, options)?
            .to_string()
            .into_bytes())
    }),
};

/// As a picture.
pub(super) const DOT: Form = Form {
    name: "dot",
    summary: "The optimised decode graph for Graphviz",
    devices: ALL,
    is_text: true,
    write: Write::Bytes(|model, options| {
        Ok(graph(model, ProgramKind::Decode, options)?.to_dot().into_bytes())
    }),
};
