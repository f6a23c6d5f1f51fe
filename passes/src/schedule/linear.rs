//! Products of activations with weight matrices, and everything that rides along in their epilogue.
//!
//! Decode reads every weight once, so it is bound by memory: a task reads four rows a quarter of the matrix apart,
//! four concurrent streams, each prefetched a few lines ahead. Prefill computes tiles of tokens × outputs whose
//! accumulators stay in registers.

use rwkvc_ir::graph::ops::{Activation, Member};
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Buf, Extent, Inst, LoopKind, Reg};

use super::{Scheduled, Scope, Tensor, at, math};
use rwkvc_backend_api::Features;

/// Distance of the prefetch on each stream, in bytes: what was fastest over matrices far larger than the caches.
const PREFETCH_BYTES: i64 = 512;

/// The buffers of one member.
struct Buffers<'m> {
    member: &'m Member,
    x: Buf,
    w: Buf,
    bias: Option<Buf>,
    scale: Option<Buf>,
    residual: Option<Buf>,
    y: Buf,
    inputs: i64,
    outputs: i64,
}

/// `y = activation(W x + bias) * scale + residual` for each member, in one launch.
pub(super) fn linear_group(
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &Features,
) -> Vec<Scheduled> {
    let rows = operands[0].rows();
    let dims: Vec<String> = results
        .iter()
        .zip(inputs_of(members, operands))
        .map(|(y, i)| format!("{}x{i}", y.last()))
        .collect();
    let name = format!("linear_{}_{}", operands[1].dtype, dims.join("_"));
    let mut s = Scope::new(&name, operands, results, features);
    let mut next = 0..;
    let mut operand = || next.next().expect("endless");
    let mut all = vec![];
    for (m, member) in members.iter().enumerate() {
        let (x, w) = (operand(), operand());
        let inputs = operands[x].last();
        let outputs = results[m].last();
        let x = s.read("x", x);
        let w = s.read("w", w);
        let bias = member.bias.then(|| s.read("bias", operand()));
        let scale = member.scale.then(|| s.read("scale", operand()));
        let residual = member.residual.then(|| s.read("residual", operand()));
        let y = s.write("y", m);
        all.push(Buffers {
            member,
            x,
            w,
            bias,
            scale,
            residual,
            y,
            inputs,
            outputs,
        });
    }
    if rows == Extent::fixed(1) {
        decode(&mut s, &all)
    } else {
        prefill(&mut s, &all, rows)
    }
    vec![s.finish()]
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
fn dispatch(
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

/// One token: a task is four far rows of one member's matrix; the last task of a member also has the rows left over.
fn decode(s: &mut Scope<'_>, members: &[Buffers<'_>]) {
    let (lanes, wide) = (
        s.lanes(),
        s.features.vector_registers >= 32 || s.features.f32_lanes >= 8,
    );
    let prefetch = s.features.prefetch;
    let tasks: Vec<i64> = members
        .iter()
        .map(|m| m.outputs / 4 + i64::from(m.outputs % 4 != 0))
        .collect();
    let unroll = if wide { 2 } else { 1 };
    s.b.parallel("task", Extent::fixed(tasks.iter().sum()), |b, task| {
        dispatch(b, task, &tasks, 0, 0, &|b, m, own| {
            let m = &members[m];
            let quarter = m.outputs / 4;
            let rows = |b: &mut Builder, rows: Vec<Affine>| {
                let starts: Vec<Affine> = rows.iter().map(|r| r.clone() * m.inputs).collect();
                let dot = Dot {
                    x: m.x,
                    w: m.w,
                    n: m.inputs,
                    lanes,
                    unroll,
                    prefetch,
                };
                let sums = dot.emit(b, &[Affine::from(0)], &starts);
                for (row, sum) in rows.into_iter().zip(&sums[0]) {
                    m.epilogue(b, row.clone(), row, *sum);
                }
            };
            let far = |own: &Affine| (0..4).map(|i| own.clone() + i * quarter).collect::<Vec<_>>();
            let rest = (4 * quarter..m.outputs).map(Affine::from).collect::<Vec<_>>();
            match (quarter, rest.is_empty()) {
                (0, _) => rows(b, rest),
                (_, true) => rows(b, far(&own)),
                (_, false) => {
                    let own = b.address("row", own);
                    let end = b.index(quarter);
                    let whole = b.less(own, end);
                    b.if_else(whole, |b| rows(b, far(&Affine::from(own))), |b| rows(b, rest));
                }
            }
        });
    });
}

/// How much a thread computes in registers at once.
#[derive(Clone, Copy)]
struct Tile {
    /// Tokens.
    rows: i64,
    /// Outputs for each token.
    outputs: i64,
    /// Products that are added lane by lane.
    lanes: u32,
}

/// Many tokens: a task is a few tiles of one member's outputs, for all tokens.
fn prefill(s: &mut Scope<'_>, members: &[Buffers<'_>], n_rows: Extent) {
    // Accumulators, one x vector a token and a converted weight vector share the registers.
    let (rows, outputs) = if s.features.vector_registers >= 32 {
        (4, 6)
    } else {
        (4, 2)
    };
    let tile = Tile {
        rows,
        outputs,
        lanes: s.lanes(),
    };
    const TILES_A_TASK: i64 = 4;
    let block = tile.outputs * TILES_A_TASK;
    let tasks: Vec<i64> = members
        .iter()
        .map(|m| m.outputs / block + i64::from(m.outputs % block != 0))
        .collect();
    let count = |b: &mut Builder| match n_rows.as_fixed() {
        Some(n) => b.index(n),
        None => {
            let tokens = b.inst("tokens", Inst::Tokens);
            b.address("rows", at(tokens, n_rows.per_token))
        }
    };
    s.b.parallel("task", Extent::fixed(tasks.iter().sum()), |b, task| {
        let n_rows = count(b);
        let height = b.index(tile.rows);
        let row_tiles = b.binary(rwkvc_ir::kernel::Binary::Div, n_rows, height);
        dispatch(b, task, &tasks, 0, 0, &|b, m, own| {
            let m = &members[m];
            let full = m.outputs / block;
            let rest = m.outputs % block;
            let tiles = |b: &mut Builder, first: Affine, outputs: i64| {
                b.serial("tile", 0, row_tiles, |b, t| {
                    m.tiles(b, at(t, tile.rows), first.clone(), outputs, tile);
                });
                let done = b.address("done", at(row_tiles, tile.rows));
                b.serial("row", done, n_rows, |b, t| {
                    m.tiles(
                        b,
                        Affine::from(t),
                        first.clone(),
                        outputs,
                        Tile { rows: 1, ..tile },
                    );
                });
            };
            match (full, rest) {
                (0, _) => tiles(b, Affine::from(0), rest),
                (_, 0) => tiles(b, own * block, block),
                _ => {
                    let own = b.address("block", own);
                    let end = b.index(full);
                    let whole = b.less(own, end);
                    b.if_else(
                        whole,
                        |b| tiles(b, at(own, block), block),
                        |b| tiles(b, Affine::from(full * block), rest),
                    );
                }
            }
        });
    });
}

impl Buffers<'_> {
    /// The tokens of a tile from `row` on × `outputs` outputs from `first` on, tile after tile.
    fn tiles(&self, b: &mut Builder, row: Affine, first: Affine, outputs: i64, size: Tile) {
        let (rows, width, lanes) = (size.rows, size.outputs, size.lanes);
        let tile = |b: &mut Builder, output: Affine, width: i64| {
            let row_at = |i: i64, n: i64| (row.clone() + i) * n;
            let xs: Vec<Affine> = (0..rows).map(|i| row_at(i, self.inputs)).collect();
            let ws: Vec<Affine> = (0..width).map(|j| (output.clone() + j) * self.inputs).collect();
            let dot = Dot {
                x: self.x,
                w: self.w,
                n: self.inputs,
                lanes,
                unroll: 1,
                prefetch: false,
            };
            let sums = dot.emit(b, &xs, &ws);
            for (i, sums) in (0..).zip(&sums) {
                for (j, sum) in (0..).zip(sums) {
                    let channel = output.clone() + j;
                    self.epilogue(b, channel.clone(), row_at(i, self.outputs) + channel, *sum);
                }
            }
        };
        let whole = outputs / width;
        if whole > 0 {
            b.serial("column", 0, whole, |b, c| {
                tile(b, first.clone() + at(c, width), width)
            });
        }
        if outputs % width > 0 {
            tile(b, first + whole * width, outputs % width);
        }
    }

    /// Turns a dot product into an output: bias, activation, scale, residual.
    fn epilogue(&self, b: &mut Builder, channel: Affine, position: Affine, mut y: Reg) {
        if let Some(bias) = self.bias {
            let bias = b.load("bias", bias, channel, 1);
            y = b.add(y, bias);
        }
        y = activate(b, self.member.activation, y);
        if let Some(scale) = self.scale {
            let scale = b.load("scale", scale, position.clone(), 1);
            y = b.mul(y, scale);
        }
        if let Some(residual) = self.residual {
            let residual = b.load("residual", residual, position.clone(), 1);
            y = b.add(residual, y);
        }
        b.store(self.y, position, y);
    }
}

/// Applies an activation to any number of lanes.
fn activate(b: &mut Builder, activation: Activation, y: Reg) -> Reg {
    match activation {
        Activation::None => y,
        Activation::Relu => math::relu(b, y),
        Activation::Relu2 => {
            let y = math::relu(b, y);
            b.mul(y, y)
        }
        Activation::Tanh => math::tanh(b, y),
        Activation::Sigmoid => math::sigmoid(b, y),
    }
}

/// Dot products of some rows of `x` with some rows of `w`, all of length `n`.
struct Dot {
    x: Buf,
    w: Buf,
    n: i64,
    lanes: u32,
    /// Independent accumulators for each pair of rows.
    unroll: i64,
    prefetch: bool,
}

impl Dot {
    /// `xs` and `ws` are where the rows start. Gives scalars: `sums[x][w]`.
    fn emit(&self, b: &mut Builder, xs: &[Affine], ws: &[Affine]) -> Vec<Vec<Reg>> {
        let mut lanes = self.lanes;
        while i64::from(lanes) > self.n {
            lanes /= 2;
        }
        let step = i64::from(lanes);
        let unroll = if self.n >= step * self.unroll {
            self.unroll
        } else {
            1
        };
        let zero = b.float(0.0, lanes);
        let acc: Vec<Vec<Vec<Reg>>> = (0..unroll)
            .map(|_| {
                xs.iter()
                    .map(|_| ws.iter().map(|_| b.var("acc", zero)).collect())
                    .collect()
            })
            .collect();
        let ahead = PREFETCH_BYTES / b.dtype(self.w).size() as i64;
        let block = |b: &mut Builder, k: Reg, unroll: i64| {
            for u in 0..unroll {
                let k = Affine::from(k) + u * step;
                let x: Vec<Reg> = xs
                    .iter()
                    .map(|x| b.load("x", self.x, x.clone() + k.clone(), lanes))
                    .collect();
                for (j, w) in ws.iter().enumerate() {
                    let at = w.clone() + k.clone();
                    if self.prefetch && u == 0 {
                        b.prefetch(self.w, at.clone() + ahead);
                    }
                    let w = b.load("w", self.w, at, lanes);
                    for (i, &x) in x.iter().enumerate() {
                        let acc = acc[u as usize][i][j];
                        b.set(acc, Inst::Fma(w, x, acc));
                    }
                }
            }
        };
        let whole = self.n / (step * unroll) * (step * unroll);
        b.for_loop(LoopKind::Serial, "k", 0, whole, step * unroll, |b, k| {
            block(b, k, unroll)
        });
        let vectors = self.n / step * step;
        if vectors > whole {
            b.for_loop(LoopKind::Serial, "k", whole, vectors, step, |b, k| block(b, k, 1));
        }
        let mut sums: Vec<Vec<Reg>> = vec![];
        for i in 0..xs.len() {
            let mut row = vec![];
            for j in 0..ws.len() {
                let sum = acc[1..]
                    .iter()
                    .fold(acc[0][i][j], |sum, acc| b.add(sum, acc[i][j]));
                row.push(b.reduce_add(sum));
            }
            sums.push(row);
        }
        if vectors == self.n {
            return sums;
        }
        let sums: Vec<Vec<Reg>> = sums
            .iter()
            .map(|row| row.iter().map(|&sum| b.var("sum", sum)).collect())
            .collect();
        b.serial("k", vectors, self.n, |b, k| {
            let x: Vec<Reg> = xs.iter().map(|x| b.load("x", self.x, x.clone() + k, 1)).collect();
            for (j, w) in ws.iter().enumerate() {
                let w = b.load("w", self.w, w.clone() + k, 1);
                for (i, &x) in x.iter().enumerate() {
                    b.set(sums[i][j], Inst::Fma(w, x, sums[i][j]));
                }
            }
        });
        sums
    }
}
