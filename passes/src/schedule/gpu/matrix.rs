//! Products of bf16 matrices with the activations of many tokens, on the GPU's units for products of small matrices.
//!
//! Activations that are bf16 are multiplied as they are. An f32 is the sum of three bf16, exactly: its upper eight bits, those of
//! what is left, and the rest. Each of the three is multiplied by the weights, so products are as exact as in f32.
//!
//! The order of the inputs does not matter in a sum, as long as both factors agree. So a thread takes eight consecutive inputs
//! of a row, 16 bytes of weights, for what the unit calls inputs `2q`, `2q + 1`, `2q + 8` and `2q + 9` of two products:
//! fragments need no exchange between threads, neither of weights from memory nor of activations.
//!
//! ```text
//! few tokens:  a block has 16 outputs, its warps share the inputs out among themselves and add up at the end
//! many tokens: a block has 128 outputs × 64 or 256 tokens at a time; inputs pass through shared memory
//! ```

mod stored;
mod tile;

use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Member;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Buf, Extent, Inst, LoopKind, Reg, Unary};

use super::super::group::{self, Buffers, Width, dispatch};
use super::super::rows;
use super::block::{Threads, clamped, parts, where_inside, within};
use super::skip::{self, is_skipping};
use super::{GpuFeatures, Scheduled, Tensor, at};
use stored::Stored;
use tile::Tile;

/// Rows of A: outputs of a product of the unit.
const M: i64 = 16;
/// Columns of B: its tokens.
const N: i64 = 8;
/// Inputs of two products, of which a thread has eight.
const K: i64 = 32;

/// The warps of a block.
const WARPS: i64 = 8;

/// The most tokens that count as few.
const FEW: i64 = 64;
/// How many times `N` tokens a block may compute of few, from the least on.
const WIDTHS: [i64; 3] = [1, 4, FEW / N];
/// Steps of `K` inputs whose weights a warp has in flight, for few tokens.
const IN_FLIGHT: i64 = 4;
/// The most products of `N` tokens and `K` inputs that are written out one after the other.
const WRITTEN_OUT: i64 = 16;

/// Outputs of a block for many tokens.
const OUTPUTS: i64 = 128;
/// Blocks that share the tokens of the same outputs: as many as there are blocks of `M` outputs in a tile.
const SHARES: i64 = OUTPUTS / M;

/// Rows of so many inputs are worth the start and the end of a wide tile.
const LONG: i64 = 512;

/// Terms of an f32 activation.
const TERMS: usize = 3;

/// Words between tokens in shared memory, of a warp's sums for few tokens: rows are longer than outputs, so that threads meet
/// different banks.
const FEW_PITCH: i64 = M + 4;

/// Whether the members of a group can be computed here.
pub(super) fn fits(all: &[Buffers<'_>], b: &Builder, features: &GpuFeatures) -> bool {
    features.threads == WARPS as u32 * features.warp
        && all
            .iter()
            .all(|m| b.dtype(m.w) == DType::BF16 && m.inputs % K == 0 && m.outputs % 2 == 0)
}

/// `y = activation(W x + bias) * scale + residual` for each member, in one launch, for up to `most` rows.
pub(super) fn linear_group(
    members: &[Member],
    operands: &[Tensor],
    results: &[Tensor],
    features: &GpuFeatures,
    most: i64,
) -> Vec<Scheduled> {
    let rows = operands[0].rows();
    let panels: Width<'_> = &|_| skip::WIDTH;
    let (stored, panels) = match is_skipping(members) {
        true => (Stored::Panels, Some(panels)),
        false => (Stored::Rows, None),
    };
    let (mut s, all) = group::open(members, operands, results, features, panels, 1);
    let ways: Vec<Vec<Way>> = all.iter().map(|m| ways(s.b.dtype(m.x), m.inputs, most)).collect();
    let words = ways.iter().flatten().map(Way::words).max();
    let memory = s.b.shared("memory", DType::I32, words.expect("there is a way"));
    let tasks: Vec<i64> = all.iter().map(|m| parts(m.outputs, OUTPUTS) * SHARES).collect();
    s.blocks(Extent::fixed(tasks.iter().sum()), |b, block, threads| {
        let tokens = rows::count(b, rows);
        dispatch(b, block, &tasks, 0, 0, &|b, m, own| {
            let product = Product {
                member: &all[m],
                stored,
                memory,
                tokens,
                threads,
                own: b.address("own", own),
            };
            product.choose(b, &ways[m]);
        });
    });
    vec![s.finish()]
}

/// How some number of tokens is computed.
#[derive(Clone, Copy)]
enum Way {
    /// Up to so many times `N`.
    Few(i64),
    /// Any number.
    Many(Tile),
}

/// The ways for up to `most` tokens, each for more of them than the one before.
fn ways(activations: DType, inputs: i64, most: i64) -> Vec<Way> {
    let few = WIDTHS.map(Way::Few);
    let many: &[Tile] = match activations {
        DType::BF16 if inputs < LONG => &[Tile::NARROW],
        DType::BF16 => &[Tile::NARROW, Tile::WIDE],
        _ => &[Tile::EXACT],
    };
    let all: Vec<Way> = few
        .into_iter()
        .chain(many.iter().copied().map(Way::Many))
        .collect();
    // With f32 activations all programs have all ways, so that they share kernels.
    let enough = match activations {
        DType::BF16 => all.iter().position(|way| way.tokens() >= most),
        _ => None,
    };
    all[..enough.map_or(all.len(), |last| last + 1)].to_vec()
}

impl Way {
    /// For up to so many tokens it is the best.
    fn tokens(&self) -> i64 {
        match self {
            Way::Few(width) => width * N,
            Way::Many(tile) => tile.tokens * SHARES,
        }
    }

    /// Words of shared memory.
    fn words(&self) -> i64 {
        match self {
            Way::Few(width) => WARPS * width * N * FEW_PITCH,
            Way::Many(tile) => tile.words(),
        }
    }
}

/// What the threads of a block multiply.
struct Product<'a, 'm> {
    member: &'a Buffers<'m>,
    /// How its matrix lies.
    stored: Stored,
    /// Shared by the block.
    memory: Buf,
    /// How many tokens there are.
    tokens: Reg,
    threads: Threads,
    /// The number of the block among those of the member.
    own: Reg,
}

/// Eight inputs of one row for a thread: what the unit takes for two products.
type Words = [Reg; 4];

impl Product<'_, '_> {
    /// Takes the first of the ways that all tokens fit in, or the last.
    fn choose(&self, b: &mut Builder, ways: &[Way]) {
        let (way, others) = ways.split_first().expect("there is a way");
        let compute = |b: &mut Builder| match way {
            Way::Few(width) => self.few(b, *width),
            Way::Many(tile) => self.many(b, tile),
        };
        if others.is_empty() {
            return compute(b);
        }
        let end = b.index(way.tokens() + 1);
        let fits = b.less(self.tokens, end);
        b.if_else(fits, compute, |b| self.choose(b, others));
    }

    /// The place of a thread in the fragments of its warp: a row, and which eight inputs.
    fn place(&self, b: &mut Builder) -> (Reg, Reg) {
        b.div_rem(self.threads.lane, 4)
    }

    /// A token that exists: beyond the last it is the last one.
    fn token(&self, b: &mut Builder, token: Affine) -> Reg {
        let token = b.address("token", token);
        let last = b.address("last", Affine::from(self.tokens) - 1);
        b.binary(Binary::Min, token, last)
    }

    /// An output that exists, in the same way.
    fn output(&self, b: &mut Builder, output: Affine) -> Reg {
        let outputs = self.member.outputs;
        clamped(b, output, outputs, parts(outputs, OUTPUTS) * OUTPUTS).0
    }

    /// Up to `width * N` tokens.
    fn few(&self, b: &mut Builder, width: i64) {
        let inputs = self.member.inputs;
        let (g, q) = self.place(b);
        let first = at(self.own, M);
        let places = self.places_of_few(b, g);
        let tokens: Vec<Reg> = (0..width)
            .map(|j| self.token(b, Affine::from(g) + j * N))
            .collect();
        let zero = b.float(0.0, 4);
        let sums: Vec<Reg> = tokens.iter().map(|_| b.var("sum", zero)).collect();

        // Step `s` is that of warp `s % WARPS`.
        let steps = parts(inputs, K);
        let each = parts(steps, WARPS);
        let multiply = |b: &mut Builder, round: Affine, count: i64| {
            let ks: Vec<(Reg, Option<Reg>)> = (0..count)
                .map(|u| {
                    let step = round.clone() * WARPS + self.threads.warp + u * WARPS;
                    clamped(b, step, steps, each * WARPS)
                })
                .collect();
            let ks: Vec<(Affine, Option<Reg>)> = ks
                .into_iter()
                .map(|(step, inside)| (at(step, K) + at(q, 8), inside))
                .collect();
            let ws: Vec<Vec<Reg>> = ks.iter().map(|(k, _)| self.load_few(b, &places, k)).collect();
            for ((k, inside), ws) in ks.iter().zip(ws) {
                let rows = self.words_of_few(b, &ws);
                let left = fragments_of_rows(b, rows);
                for (token, sum) in tokens.iter().zip(&sums) {
                    for right in self.activations(b, at(*token, inputs) + k.clone(), *inside) {
                        add_products(b, *sum, left, right);
                    }
                }
            }
        };
        let most = IN_FLIGHT.min(WRITTEN_OUT / width);
        let at_once = (1..=most).rev().find(|n| each % n == 0).unwrap_or(1);
        b.for_loop(LoopKind::Serial, "round", 0, each, at_once, |b, round| {
            multiply(b, round.into(), at_once);
        });

        let own_sums = at(self.threads.warp, width * N * FEW_PITCH);
        for (j, sum) in (0..).zip(sums) {
            let rows = self.outputs_of(g);
            self.keep(b, sum, own_sums.clone() + j * N * FEW_PITCH, (rows, q));
        }
        b.barrier();
        let count = width * N * M;
        let element = |b: &mut Builder, e: Reg| {
            let (token, output) = b.div_rem(e, M);
            let sum_of = |b: &mut Builder, warp: i64| {
                let place = at(token, FEW_PITCH) + output + warp * width * N * FEW_PITCH;
                self.kept(b, place)
            };
            let sum = (1..WARPS).fold(sum_of(b, 0), |sum, warp| {
                let other = sum_of(b, warp);
                b.add(sum, other)
            });
            self.finish(b, first.clone() + output, Affine::from(token), sum);
        };
        let rounds = parts(count, self.threads.count);
        b.serial("round", 0, rounds, |b, round| {
            let e = b.address("element", at(round, self.threads.count) + self.threads.t);
            within(b, e, count, self.threads.count, |b| element(b, e));
        });
    }

    /// Eight activations, zeros if they are not inside, as one or more terms.
    fn activations(&self, b: &mut Builder, from: Affine, inside: Option<Reg>) -> Vec<Words> {
        let inside = inside.map(|inside| b.splat(inside, 4));
        let where_inside = |b: &mut Builder, x: Reg, zero: Reg| match inside {
            Some(inside) => b.inst("x", Inst::Select(inside, x, zero)),
            None => x,
        };
        if b.dtype(self.member.x) == DType::BF16 {
            let zero = b.int(0, 4);
            let x = b.words("x", self.member.x, from, 4);
            let x = where_inside(b, x, zero);
            return vec![lanes(b, x)];
        }
        let zero = b.float(0.0, 4);
        let [low, high] = [0, 4].map(|half| {
            let x = b.load("x", self.member.x, from.clone() + half, 4);
            let x = where_inside(b, x, zero);
            terms(b, x)
        });
        let together = low.into_iter().zip(high);
        together
            .map(|(low, high)| [low[0], low[1], high[0], high[1]])
            .collect()
    }

    /// Puts a thread's part of a product into shared memory, token by token: two outputs of two tokens.
    fn keep(&self, b: &mut Builder, sum: Reg, from: Affine, (rows, q): ([Affine; 2], Reg)) {
        let bits = b.unary(Unary::BitsOf, sum);
        for (i, bits) in lanes(b, bits).into_iter().enumerate() {
            let (row, column) = (rows[i / 2].clone(), i as i64 % 2);
            b.store(
                self.memory,
                from.clone() + row + at(q, 2 * FEW_PITCH) + column * FEW_PITCH,
                bits,
            );
        }
    }

    fn kept(&self, b: &mut Builder, at: Affine) -> Reg {
        let bits = b.load("bits", self.memory, at, 1);
        b.unary(Unary::FromBits, bits)
    }

    /// What follows a sum, if there is such an output and token.
    fn finish(&self, b: &mut Builder, output: Affine, token: Affine, sum: Reg) {
        let token = b.address("token", token);
        let is_token = b.less(token, self.tokens);
        let output = b.address("output", output);
        let all = self.member.outputs;
        let is_output = (all % OUTPUTS != 0).then(|| {
            let end = b.index(all);
            b.less(output, end)
        });
        where_inside(b, is_output, |b| {
            where_inside(b, Some(is_token), |b| {
                let position = at(token, all) + output;
                self.member.epilogue(b, Affine::from(output), position, sum);
            });
        });
    }
}

fn lanes(b: &mut Builder, from: Reg) -> [Reg; 4] {
    [0, 1, 2, 3].map(|lane| b.inst("lane", Inst::Extract(from, lane)))
}

/// The fragments of A of two products, from a row and the eighth after it.
fn fragments_of_rows(b: &mut Builder, [upper, lower]: [Words; 2]) -> [Reg; 2] {
    [0, 2].map(|i| {
        b.inst(
            "a",
            Inst::Join(vec![upper[i], lower[i], upper[i + 1], lower[i + 1]]),
        )
    })
}

/// Adds both products to a sum.
fn add_products(b: &mut Builder, sum: Reg, left: [Reg; 2], right: Words) {
    for (a, right) in left.into_iter().zip([[right[0], right[1]], [right[2], right[3]]]) {
        let right = b.inst("b", Inst::Join(right.to_vec()));
        b.set(
            sum,
            Inst::Mma {
                format: DType::BF16,
                a,
                b: right,
                c: sum,
            },
        );
    }
}

/// Four activations as sums of bf16: for each term, four of them in two words.
fn terms(b: &mut Builder, mut x: Reg) -> [[Reg; 2]; TERMS] {
    let half = b.int(16, 4);
    let [lower, upper] = [0xffff, 0xffff_0000_u32 as i32].map(|mask| b.int(mask, 4));
    let mut terms = vec![];
    for _ in 0..TERMS {
        let bits = b.unary(Unary::BitsOf, x);
        let high = b.binary(Binary::And, bits, upper);
        let low = b.binary(Binary::Shr, bits, half);
        let low = b.binary(Binary::And, low, lower);
        terms.push([0, 2].map(|i| {
            let low = b.inst("low", Inst::Extract(low, i));
            let high = b.inst("high", Inst::Extract(high, i + 1));
            b.binary(Binary::Or, low, high)
        }));
        let kept = b.unary(Unary::FromBits, high);
        x = b.sub(x, kept);
    }
    terms.try_into().expect("a term each")
}
