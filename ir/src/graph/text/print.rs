//! The printer.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter};

use super::name;
use crate::graph::{Graph, NodeId, Op, Value};

/// A header up to this many characters stays on one line.
const LINE: usize = 100;

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let order = self.topological();
        let names = Names::new(self, &order);
        let inputs = self
            .inputs()
            .into_iter()
            .map(|(input, ty)| format!("%{}: {ty}", name(&input)));
        let outputs = self
            .outputs()
            .iter()
            .map(|(output, v)| format!("{}: %{}", name(output), names.of(*v)));
        let title = format!("func @{}", name(self.name()));
        writeln!(
            f,
            "{title}{} -> {} {{",
            list(inputs.collect()),
            list(outputs.collect())
        )?;
        for node in order {
            if !matches!(self.op(node), Op::Input(_)) {
                writeln!(f, "  {}", statement(self, node, &names))?;
            }
        }
        f.write_str("}\n")
    }
}

/// A list in parentheses, one item a line if it is long.
fn list(items: Vec<String>) -> String {
    let line = items.join(", ");
    if line.chars().count() <= LINE {
        format!("({line})")
    } else {
        format!("(\n  {}\n)", items.join(",\n  "))
    }
}

fn statement(graph: &Graph, node: NodeId, names: &Names) -> String {
    let op = graph.op(node);
    let results: Vec<Value> = (0..graph.results(node)).map(|i| graph.value(node, i)).collect();
    let value = |v: &Value| format!("%{}", names.of(*v));
    let operands = graph.operands(node);
    let mut text = format!("{} = {}", joined(&results, value), op.mnemonic());
    if !operands.is_empty() {
        text += &format!(" {}", joined(&operands, value));
    }
    text += &attributes(op);
    text += &format!(" : {}", joined(&results, |&v| graph.ty(v).to_string()));
    if let Some(label) = graph.label(node) {
        text += &format!(" @{}", super::quoted(label));
    }
    text
}

/// The attributes of an op, with a blank before them.
pub(crate) fn attributes(op: &Op) -> String {
    let attributes = op.attributes();
    let bare = op.info().operands.is_empty();
    match attributes.as_slice() {
        [] => String::new(),
        [(_, value)] if bare => format!(" {value}"),
        all => format!(" {{{}}}", joined(all, |(name, value)| format!("{name}={value}"))),
    }
}

fn joined<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What values are called.
struct Names(HashMap<Value, String>);

impl Names {
    fn new(graph: &Graph, order: &[NodeId]) -> Self {
        let mut names = HashMap::new();
        let mut taken = HashSet::new();
        for (input, _) in graph.inputs() {
            if let Some(value) = graph.input(&input) {
                names.insert(value, name(&input));
                taken.insert(input);
            }
        }
        for &node in order {
            if let Op::Param(param) = graph.op(node)
                && name(&param.name) == param.name
                && taken.insert(param.name.clone())
            {
                names.insert(graph.value(node, 0), param.name.clone());
            }
        }
        let mut numbers = (0..)
            .map(|i: usize| i.to_string())
            .filter(|number| !taken.contains(number));
        for &node in order {
            for i in 0..graph.results(node) {
                let number = || numbers.next().expect("numbers do not end");
                names.entry(graph.value(node, i)).or_insert_with(number);
            }
        }
        Names(names)
    }

    fn of(&self, value: Value) -> &str {
        &self.0[&value]
    }
}
