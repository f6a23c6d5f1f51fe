//! Graphviz.

use std::fmt::Write;

use super::text::{attributes, quoted};
use super::{Graph, Op};

impl Graph {
    /// The graph in the language of Graphviz: what the outputs need, without weights and constants, which are named in
    /// the box of the op that reads them.
    pub fn to_dot(&self) -> String {
        let mut dot = format!("digraph {} {{\n  node [shape=box];\n", quoted(self.name()));
        // Writing to a string cannot fail.
        let mut line = |text: String| _ = writeln!(dot, "  {text}");
        for node in self.topological() {
            let op = self.op(node);
            let title = match op {
                Op::Param(_) | Op::Const(_) => continue,
                Op::Input(input) => input.name.clone(),
                _ => format!("{}{}", op.mnemonic(), attributes(op)),
            };
            let mut lines = vec![title];
            lines.extend(self.label(node).map(String::from));
            for operand in self.operands(node) {
                match self.op(operand.node) {
                    Op::Param(param) => lines.push(param.name.clone()),
                    Op::Const(constant) => lines.push(constant.value.to_string()),
                    _ => {
                        let ty = self.ty(operand).to_string();
                        line(format!("n{} -> n{node} [label={}];", operand.node, quoted(&ty)));
                    }
                }
            }
            let shape = if matches!(op, Op::Input(_)) {
                ", shape=ellipse"
            } else {
                ""
            };
            line(format!(
                "n{node} [label={}{shape}];",
                quoted(&lines.join("\u{1}")).replace("\\u{1}", "\\n")
            ));
        }
        for (i, (name, value)) in self.outputs().iter().enumerate() {
            line(format!("out{i} [label={}, shape=ellipse];", quoted(name)));
            line(format!(
                "n{} -> out{i} [label={}];",
                value.node,
                quoted(&self.ty(*value).to_string())
            ));
        }
        dot + "}\n"
    }
}
