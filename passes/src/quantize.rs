//! `quantize`

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use rwkvc_ir::graph::ops::{Op, Quantize};
use rwkvc_ir::graph::{Graph, GraphError, Value};
use rwkvc_ir::quantized::{Format, GROUP};

use crate::fuel::Fuel;
use crate::projection::projections;
use crate::settings::Setting;

/// What a matrix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The embedding table.
    Emb,
    /// The output matrix of the model.
    Head,
    /// Receptance, key, value and output.
    Att,
    /// Key and value of the channel mix.
    Ffn,
    /// The low-rank matrices.
    Lora,
}

impl Class {
    /// The class of a matrix by its official name; `None` for what is no matrix.
    fn of(name: &str) -> Option<Self> {
        match name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
            None if name == "emb.weight" => Some(Class::Emb),
            None if name == "head.weight" => Some(Class::Head),
            None => None,
            Some((_, part)) => match part {
                "att.receptance.weight" | "att.key.weight" | "att.value.weight" | "att.output.weight" => {
                    Some(Class::Att)
                }
                "ffn.key.weight" | "ffn.value.weight" => Some(Class::Ffn),
                "att.w1" | "att.w2" | "att.a1" | "att.a2" | "att.v1" | "att.v2" | "att.g1" | "att.g2" => {
                    Some(Class::Lora)
                }
                // DeepEmbed: its tables are computed of the embedding, but are none.
                "ffn.s1" | "ffn.s2" | "ffn.s_emb.weight" | "ffn.s_emb_x.weight" => Some(Class::Lora),
                _ => None,
            },
        }
    }
}

/// The classes by name.
const CLASSES: [(&str, Class); 5] = [
    ("emb", Class::Emb),
    ("head", Class::Head),
    ("att", Class::Att),
    ("ffn", Class::Ffn),
    ("lora", Class::Lora),
];

/// The formats of matrices, by class; without one a matrix keeps the format that it has in the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    classes: [Option<Format>; CLASSES.len()],
    /// Matrices that are stored in such a format already.
    stored: BTreeMap<String, Format>,
}

/// A text that names no formats.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatsError {
    /// The format is unknown.
    #[error("unknown format of weights `{0}`, expected `int8`, `int4` or `stored`")]
    Format(String),
    /// The class is unknown.
    #[error("unknown class of weights `{0}`, expected emb, head, att, ffn or lora")]
    Class(String),
}

impl Formats {
    /// The format of a class.
    pub fn of(&self, class: Class) -> Option<Format> {
        self.classes[class as usize]
    }

    /// Whether no matrix is quantised.
    pub fn are_stored(&self) -> bool {
        self.classes.iter().all(Option::is_none) && self.stored.is_empty()
    }

    /// These matrices as they are stored, and no others.
    pub fn as_stored(matrices: impl IntoIterator<Item = (String, Format)>) -> Self {
        Formats {
            stored: matrices.into_iter().collect(),
            ..Formats::default()
        }
    }

    /// What one word stands for: rows of the embedding and the small low-rank matrices are not worth the error of four bits.
    fn all(format: Option<Format>) -> Self {
        let mut formats = Formats {
            classes: [format; CLASSES.len()],
            ..Formats::default()
        };
        if format == Some(Format::Int4) {
            for class in [Class::Emb, Class::Lora] {
                formats.classes[class as usize] = Some(Format::Int8);
            }
        }
        formats
    }
}

impl Setting for Formats {
    const NAME: &'static str = "weights";
    const VALUE: &'static str = "FORMATS";
    const HELP: &'static str = "How matrices are stored: `stored` (as in the checkpoint), `int8` (8.5 bits a weight) or `int4` (5 \
        bits; the embedding and the low-rank matrices int8). A class may have its own: `int4,head=int8,lora=stored`; the \
        classes are emb, head, att, ffn and lora";
}

/// `int8`, `int4`, `stored`, or a class with its format, as in `int4,head=int8,lora=stored`; what comes later wins.
impl FromStr for Formats {
    type Err = FormatsError;

    fn from_str(text: &str) -> Result<Self, FormatsError> {
        let format = |word: &str| match word {
            "stored" => Ok(None),
            "int8" => Ok(Some(Format::Int8)),
            "int4" => Ok(Some(Format::Int4)),
            other => Err(FormatsError::Format(other.into())),
        };
        let mut formats = Formats::default();
        for part in text.split(',') {
            match part.split_once('=') {
                None => formats = Formats::all(format(part)?),
                Some((name, word)) => {
                    let class = CLASSES.iter().find(|(n, _)| *n == name);
                    let (_, class) = class.ok_or_else(|| FormatsError::Class(name.into()))?;
                    formats.classes[*class as usize] = format(word)?;
                }
            }
        }
        Ok(formats)
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.stored.is_empty() {
            return f.write_str("as stored, in blocks");
        }
        let word = |format: Option<Format>| format.map_or("stored", Format::name);
        if self.classes.iter().all(|c| *c == self.classes[0]) && self.classes[0] != Some(Format::Int4) {
            return f.write_str(word(self.classes[0]));
        }
        for (i, ((name, _), format)) in CLASSES.iter().zip(self.classes).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{name}={}", word(format))?;
        }
        Ok(())
    }
}

/// Matrices become codes with scales, and so do the activations that they are multiplied with. Where zeros among the activations
/// are skipped, these stay as they are, and groups run down the columns of the matrix, so that a column can be left out.
/// A matrix without whole groups keeps its format.
///
/// ```text
/// %y = linear %x, %w      %q = quantize %x {format=dynamic8, columns=false}
///                     →   %p = quantize %w {format=int8, columns=false}
///                         %y = linear %q, %p
/// ```
pub(crate) fn run(graph: &mut Graph, formats: &Formats, fuel: &mut Fuel) -> Result<(), GraphError> {
    if formats.are_stored() {
        return Ok(());
    }
    let mut quantizer = Quantizer {
        graph,
        done: HashMap::new(),
    };
    for node in quantizer.graph.topological() {
        let mut operands = quantizer.graph.operands(node);
        let op = quantizer.graph.op(node).clone();
        let mut changed = false;
        match &op {
            Op::Embed(_) => {
                if let Some(format) = quantizer.format(formats, operands[0])
                    && quantizer.fits(operands[0], false)
                    && fuel.take()
                {
                    operands[0] = quantizer.quantized(operands[0], format, false)?;
                    changed = true;
                }
            }
            Op::Linear(_) | Op::LinearGroup(_) => {
                let mut first = 0;
                let mut multiplied = vec![];
                for part in projections(quantizer.graph, node) {
                    let (x, w) = (first, first + 1);
                    first += part.operands.len();
                    let columns = part.member.skip_zeros;
                    let Some(format) = quantizer.format(formats, operands[w]) else {
                        continue;
                    };
                    // Blocks run along rows; in the other direction they are rounded again.
                    let format = match columns && !formats.stored.is_empty() {
                        true => Format::Int8,
                        false => format,
                    };
                    if !quantizer.fits(operands[w], columns) || !fuel.take() {
                        continue;
                    }
                    operands[w] = quantizer.quantized(operands[w], format, columns)?;
                    if !columns {
                        multiplied.push(x);
                    }
                    changed = true;
                }
                quantizer.activations(&mut operands, &multiplied)?;
            }
            _ => {}
        }
        if changed {
            let results = quantizer.graph.add(op, &operands)?;
            for (i, y) in results.into_iter().enumerate() {
                let old = quantizer.graph.value(node, i);
                quantizer.graph.replace_uses(old, y)?;
            }
        }
    }
    Ok(())
}

struct Quantizer<'g> {
    graph: &'g mut Graph,
    /// What was quantised already, by format and direction: an activation may be multiplied with several matrices.
    done: HashMap<(Value, Format, bool), Value>,
}

impl Quantizer<'_> {
    fn quantized(&mut self, value: Value, format: Format, columns: bool) -> Result<Value, GraphError> {
        if let Some(&done) = self.done.get(&(value, format, columns)) {
            return Ok(done);
        }
        let quantized = self.graph.add(Quantize { format, columns }, &[value])?[0];
        self.done.insert((value, format, columns), quantized);
        Ok(quantized)
    }

    /// Puts activations as codes in the place of these operands, those that have none yet all by one op.
    fn activations(&mut self, operands: &mut [Value], which: &[usize]) -> Result<(), GraphError> {
        let mut new: Vec<Value> = which.iter().map(|&i| operands[i]).collect();
        new.sort();
        new.dedup();
        new.retain(|&x| !self.done.contains_key(&(x, Format::Dynamic8, false)));
        if !new.is_empty() {
            let op = Quantize {
                format: Format::Dynamic8,
                columns: false,
            };
            let results = self.graph.add(op, &new)?;
            for (x, y) in new.into_iter().zip(results) {
                self.done.insert((x, Format::Dynamic8, false), y);
            }
        }
        for &i in which {
            operands[i] = self.done[&(operands[i], Format::Dynamic8, false)];
        }
        Ok(())
    }

    /// The format that a matrix is to have, if it is one of weights.
    fn format(&self, formats: &Formats, matrix: Value) -> Option<Format> {
        if !self.graph.is_constant(matrix) {
            return None;
        }
        let names: Vec<String> = self
            .graph
            .extract(matrix)
            .params()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        if let Some(&format) = names.iter().find_map(|name| formats.stored.get(name)) {
            // What is computed of blocks is rounded again, and a second rounding to four bits would show.
            let is_stored = matches!(self.graph.op(matrix.node), Op::Param(_));
            return Some(if is_stored { format } else { Format::Int8 });
        }
        // A matrix may be computed of several weights: the table of its norm too, a table of DeepEmbed of the embedding too.
        let classes = names.iter().filter_map(|name| Class::of(name));
        formats.of(classes.max().unwrap_or(Class::Lora))
    }

    /// Whether a matrix has whole groups along its rows, or down its columns.
    fn fits(&self, matrix: Value, columns: bool) -> bool {
        let shape = &self.graph.ty(matrix).shape;
        let axis = if columns { 0 } else { 1 };
        let length = shape.get(axis).and_then(|d| d.as_fixed());
        shape.len() == 2 && length.is_some_and(|n| n % GROUP == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_by_whole_names() {
        for (name, class) in [
            ("emb.weight", Some(Class::Emb)),
            ("head.weight", Some(Class::Head)),
            ("blocks.11.att.key.weight", Some(Class::Att)),
            ("blocks.0.ffn.value.weight", Some(Class::Ffn)),
            ("blocks.3.att.w2", Some(Class::Lora)),
            ("blocks.3.ffn.s_emb.weight", Some(Class::Lora)),
            ("blocks.0.ln0.weight", None),
        ] {
            assert_eq!(Class::of(name), class, "{name}");
        }
    }

    #[test]
    fn formats_are_read_and_written() {
        let formats = |text: &str| text.parse::<Formats>();
        assert_eq!(formats("stored"), Ok(Formats::default()));
        assert_eq!(formats("int8").map(|f| f.to_string()), Ok("int8".into()));
        let mixed = formats("int4,head=int8,lora=stored").expect("it is read");
        assert_eq!(
            mixed.to_string(),
            "emb=int8,head=int8,att=int4,ffn=int4,lora=stored"
        );
        assert_eq!(formats(&mixed.to_string()), Ok(mixed));
        assert_eq!(formats("int3"), Err(FormatsError::Format("int3".into())));
        assert_eq!(formats("tail=int8"), Err(FormatsError::Class("tail".into())));
    }
}
