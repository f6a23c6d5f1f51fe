//! Groups of matrix products in one kernel: their buffers, who computes which, and what follows a product.

use rwkvc_ir::graph::ops::{Activation, Member};
use rwkvc_ir::kernel::builder::{Builder, transcendental};
use rwkvc_ir::kernel::{Affine, Buf, Reg};
use rwkvc_ir::quantized::Format;

use crate::storage::Part;

use super::{Scope, Tensor};

/// The buffers of one member.
pub(super) struct Buffers<'m> {
    pub(super) member: &'m Member,
    /// The activations, or their codes.
    pub(super) x: Buf,
    /// The matrix, or its codes.
    pub(super) w: Buf,
    /// The other parts of a quantised matrix.
    pub(super) quantized: Option<Quantized>,
    pub(super) bias: Option<Buf>,
    pub(super) scale: Option<Buf>,
    pub(super) residual: Option<Buf>,
    pub(super) y: Buf,
    pub(super) inputs: i64,
    pub(super) outputs: i64,
}

/// The parts of a quantised product besides codes.
pub(super) struct Quantized {
    pub(super) format: Format,
    pub(super) scales: Buf,
    /// For formats that have offsets.
    pub(super) offsets: Option<Buf>,
    /// Scales and sums of the activations, if these are quantised too.
    pub(super) activations: Option<(Buf, Buf)>,
}

/// The width of panels, which follows from the outputs.
pub(super) type Width<'f> = &'f dyn Fn(i64) -> i64;

/// Opens the kernel of a group and its parameters, member by member. Matrices lie row by row, or in `panels`; quantised ones
/// with groups along rows always lie in panels, of `packed` rows.
pub(super) fn open<'a, F>(
    members: &'a [Member],
    operands: &'a [Tensor],
    results: &'a [Tensor],
    features: &'a F,
    panels: Option<Width<'_>>,
    packed: i64,
) -> (Scope<'a, F>, Vec<Buffers<'a>>) {
    let dims: Vec<String> = results
        .iter()
        .zip(inputs_of(members, operands))
        .map(|(y, i)| format!("{}x{i}", y.last()))
        .collect();
    let format = match &operands[1].quantized {
        Some(quantize) => quantize.format.name(),
        None => operands[1].dtype.name(),
    };
    let name = format!("linear_{format}_{}", dims.join("_"));
    let mut s = Scope::new(&name, operands, results, features);
    let mut next = 0..;
    let mut operand = || next.next().expect("endless");
    let mut all = vec![];
    for (m, member) in members.iter().enumerate() {
        let (x, w) = (operand(), operand());
        let inputs = operands[x].last();
        let outputs = results[m].last();
        let (x, w, quantized) = match &operands[w].quantized {
            None => {
                let x = s.read("x", x);
                let w = match panels {
                    None => s.read("w", w),
                    Some(width) => s.panels("w", w, width(outputs)),
                };
                (x, w, None)
            }
            Some(quantize) => {
                let activations = operands[x].quantized.is_some();
                let format = quantize.format;
                let width = panels.filter(|_| quantize.columns).map_or(packed, |w| w(outputs));
                let x_codes = match activations {
                    true => s.read_part("x", x, Part::Codes),
                    false => s.read("x", x),
                };
                let quantized = Quantized {
                    format,
                    scales: s.packed("scales", w, Part::Scales, width),
                    offsets: format
                        .has_offsets()
                        .then(|| s.packed("offsets", w, Part::Offsets, width)),
                    activations: activations.then(|| {
                        (
                            s.read_part("x_scales", x, Part::Scales),
                            s.read_part("x_sums", x, Part::Sums),
                        )
                    }),
                };
                (x_codes, s.packed("w", w, Part::Codes, width), Some(quantized))
            }
        };
        let bias = member.bias.then(|| s.read("bias", operand()));
        let scale = member.scale.then(|| s.read("scale", operand()));
        let residual = member.residual.then(|| s.read("residual", operand()));
        let y = s.write("y", m);
        all.push(Buffers {
            member,
            x,
            w,
            quantized,
            bias,
            scale,
            residual,
            y,
            inputs,
            outputs,
        });
    }
    (s, all)
}

fn inputs_of<'a>(members: &'a [Member], operands: &'a [Tensor]) -> impl Iterator<Item = i64> + 'a {
    let mut first = 0;
    members.iter().map(move |m| {
        let inputs = operands[first].last();
        first += m.n_operands();
        inputs
    })
}

/// Splits `0..Σ tasks` among the members: `body(builder, member, task)` with the member's own task number.
pub(super) fn dispatch(
    b: &mut Builder,
    task: Reg,
    tasks: &[i64],
    first: i64,
    member: usize,
    body: &dyn Fn(&mut Builder, usize, Affine),
) {
    let own = Affine::from(task) - first;
    if member + 1 == tasks.len() {
        return body(b, member, own);
    }
    let end = b.index(first + tasks[member]);
    let mine = b.less(task, end);
    b.if_else(
        mine,
        |b| body(b, member, own.clone()),
        |b| dispatch(b, task, tasks, first + tasks[member], member + 1, body),
    );
}

impl Buffers<'_> {
    /// Whether a function follows that takes many instructions.
    pub(super) fn is_curved(&self) -> bool {
        matches!(self.member.activation, Activation::Tanh | Activation::Sigmoid)
    }

    /// Turns dot products of consecutive outputs into these outputs: bias, activation, scale, residual.
    pub(super) fn epilogue(&self, b: &mut Builder, channel: Affine, position: Affine, mut y: Reg) {
        let lanes = b.lanes(y);
        if let Some(bias) = self.bias {
            let bias = b.load("bias", bias, channel, lanes);
            y = b.add(y, bias);
        }
        y = activate(b, self.member.activation, y);
        if let Some(scale) = self.scale {
            let scale = b.load("scale", scale, position.clone(), lanes);
            y = b.mul(y, scale);
        }
        if let Some(residual) = self.residual {
            let residual = b.load("residual", residual, position.clone(), lanes);
            y = b.add(residual, y);
        }
        b.store(self.y, position, y);
    }
}

/// Applies an activation to any number of lanes.
fn activate(b: &mut Builder, activation: Activation, y: Reg) -> Reg {
    match activation {
        Activation::None => y,
        Activation::Relu => transcendental::relu(b, y),
        Activation::Relu2 => {
            let y = transcendental::relu(b, y);
            b.mul(y, y)
        }
        Activation::Tanh => transcendental::tanh(b, y),
        Activation::Sigmoid => transcendental::sigmoid(b, y),
    }
}
