//! Tiles: many tokens × [`OUTPUTS`] of a block, whose warps read what they multiply from shared memory.
//!
//! Inputs pass through it [`K`] at a time, through two buffers: while one is multiplied, the other is filled with what comes next,
//! and what comes after that is on its way from memory. Sixteen bytes of a row of either buffer are a fragment, and neighbouring
//! threads read neighbouring ones.

use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Affine, Binary, Inst, LoopKind, Reg, Unary};

use super::super::at;
use super::super::block::{clamped, parts, where_inside};
use super::{
    K, M, N, OUTPUTS, Product, SHARES, TERMS, WARPS, Words, add_products, fragments_of_rows, lanes, terms,
};

/// The shape of a tile.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Tokens of a block at a time.
    pub(super) tokens: i64,
    /// Outputs of a warp.
    warp_outputs: i64,
    /// Tokens of a warp.
    warp_tokens: i64,
    /// Terms of an activation.
    terms: i64,
}

/// Words of [`K`] inputs of a row.
const ROW: i64 = K / 2;
/// Words of a step's weights in shared memory.
const WEIGHTS: i64 = OUTPUTS * ROW;
/// The most words of shared memory that a kernel can have without asking for more.
const MOST_WORDS: i64 = 48 * 1024 / 4;

impl Tile {
    /// For f32 activations.
    pub(super) const EXACT: Tile = Tile {
        tokens: 64,
        warp_outputs: 32,
        warp_tokens: 32,
        terms: TERMS as i64,
    };

    /// For bf16 activations, if wide tiles would leave multiprocessors without work.
    pub(super) const NARROW: Tile = Tile {
        terms: 1,
        ..Tile::EXACT
    };

    /// For bf16 activations: twice the products for each byte of shared memory, and for each byte that comes into it.
    pub(super) const WIDE: Tile = Tile {
        tokens: 256,
        warp_outputs: 64,
        warp_tokens: 64,
        terms: 1,
    };

    /// Words of one term of a step's activations.
    const fn term(&self) -> i64 {
        self.tokens * ROW
    }

    /// Words of a step.
    const fn step(&self) -> i64 {
        WEIGHTS + self.terms * self.term()
    }

    /// Words of shared memory.
    pub(super) const fn words(&self) -> i64 {
        2 * self.step()
    }

    /// Words between tokens of a warp's sums: rows are longer than outputs, so that threads meet different banks.
    const fn pitch(&self) -> i64 {
        self.warp_outputs + N
    }
}

const _: () = {
    let all = [Tile::EXACT, Tile::NARROW, Tile::WIDE];
    let mut i = 0;
    while i < all.len() {
        let tile = &all[i];
        assert!(OUTPUTS / tile.warp_outputs * (tile.tokens / tile.warp_tokens) == WARPS);
        assert!(WARPS * M * tile.pitch() <= tile.words() && tile.words() <= MOST_WORDS);
        i += 1;
    }
};

/// Sixteen bytes that a thread brings in each step.
struct Piece {
    /// Where they are in the first step.
    from: Affine,
    /// Where they go in a buffer.
    to: Affine,
    /// Those of the step that is stored next.
    next: Reg,
}

/// What a thread brings.
struct Pieces {
    weights: [Piece; 2],
    activations: Vec<Piece>,
}

impl Product<'_, '_> {
    /// Any number of tokens: every block takes its share of the tiles.
    pub(super) fn many(&self, b: &mut Builder, tile: &Tile) {
        let (outputs, share) = b.div_rem(self.own, SHARES);
        let first = b.address("first", at(share, tile.tokens));
        let step = SHARES * tile.tokens;
        b.for_loop(
            LoopKind::Serial,
            "tile_token",
            first,
            self.tokens,
            step,
            |b, token| self.tile(b, tile, at(outputs, OUTPUTS), token),
        );
    }

    /// The outputs and tokens of a tile from `output` and `token` on.
    fn tile(&self, b: &mut Builder, tile: &Tile, output: Affine, token: Reg) {
        let pieces = self.pieces(b, tile, output.clone(), token);
        let steps = self.member.inputs / K;
        self.store(b, tile, &pieces, Affine::default());
        let second = b.index(1.min(steps - 1));
        self.bring(b, &pieces, second);

        let (g, q) = self.place(b);
        let (warp_row, warp_column) = b.div_rem(self.threads.warp, tile.tokens / tile.warp_tokens);
        let corner = (at(warp_row, tile.warp_outputs), at(warp_column, tile.warp_tokens));
        let (tall, wide) = (tile.warp_tokens / M, tile.warp_outputs / N);
        let zero = b.float(0.0, 4);
        let sums: Vec<Reg> = (0..tall * wide).map(|_| b.var("sum", zero)).collect();
        b.serial("step", 0, steps, |b, step| {
            b.barrier();
            let two = b.index(2);
            let which = b.binary(Binary::Rem, step, two);
            let fragment = at(which, tile.step()) + at(g, ROW) + at(q, 4);
            let rights: Vec<Words> = (0..wide)
                .map(|n| self.fragment(b, fragment.clone() + corner.0.clone() * ROW + n * N * ROW))
                .collect();
            for m in 0..tall {
                for term in 0..tile.terms {
                    let place = fragment.clone() + corner.1.clone() * ROW + (WEIGHTS + term * tile.term());
                    let rows = [0, N].map(|half| self.fragment(b, place.clone() + (m * M + half) * ROW));
                    let left = fragments_of_rows(b, rows);
                    for (n, right) in (0..).zip(&rights) {
                        add_products(b, sums[(m * wide + n) as usize], left, *right);
                    }
                }
                // Before the last products, which are there to be computed meanwhile.
                if m == tall - 2 {
                    self.store(b, tile, &pieces, at(which, -tile.step()) + tile.step());
                    let next = b.address("next", Affine::from(step) + 2);
                    let last = b.index(steps - 1);
                    let next = b.binary(Binary::Min, next, last);
                    self.bring(b, &pieces, next);
                }
            }
        });

        for m in 0..tall {
            let own = at(self.threads.warp, M * tile.pitch());
            b.barrier();
            for n in 0..wide {
                let bits = b.unary(Unary::BitsOf, sums[(m * wide + n) as usize]);
                let bits = lanes(b, bits);
                for half in [0, 1] {
                    let pair = b.inst("pair", Inst::Join(bits[2 * half..2 * half + 2].to_vec()));
                    let row = Affine::from(g) + half as i64 * N;
                    let place = own.clone() + row * tile.pitch() + at(q, 2) + n * N;
                    b.store(self.memory, place, pair);
                }
            }
            b.barrier();
            let pairs = tile.warp_outputs / 2;
            let (row, pair) = b.div_rem(self.threads.lane, pairs);
            let together = self.threads.warp_size / pairs;
            b.serial("round", 0, M / together, |b, round| {
                let row = at(round, together) + row;
                let bits = b.load(
                    "bits",
                    self.memory,
                    own.clone() + row.clone() * tile.pitch() + at(pair, 2),
                    2,
                );
                let sums = b.unary(Unary::FromBits, bits);
                let output = output.clone() + corner.0.clone() + at(pair, 2);
                let token = Affine::from(token) + corner.1.clone() + row + m * M;
                self.finish_pair(b, output, token, sums);
            });
        }
        b.barrier();
    }

    /// Who brings what: neighbouring threads have neighbouring pieces of a row. Those of the first step are on their way.
    fn pieces(&self, b: &mut Builder, tile: &Tile, output: Affine, token: Reg) -> Pieces {
        let inputs = self.member.inputs;
        let weights = self.places_of_many(b, &output).map(|(from, to)| {
            let next = self.load_many(b, &from, Affine::default());
            Piece {
                from,
                to,
                next: b.var("w", next),
            }
        });
        // Pieces of a row of activations, by the size of one.
        let size = b.dtype(self.member.x).size() as i64;
        let (each, pieces) = (16 / size, K * size / 16);
        let (row, part) = b.div_rem(self.threads.t, pieces);
        let rows = self.threads.count / pieces;
        let activations = (0..tile.tokens / rows)
            .map(|i| {
                let own = self.token(b, Affine::from(token) + row + i * rows);
                let from = at(own, inputs) + at(part, each);
                let next = self.activation(b, from.clone());
                Piece {
                    from,
                    to: at(row, ROW) + at(part, each / 2) + (WEIGHTS + i * rows * ROW),
                    next: b.var("x", next),
                }
            })
            .collect();
        Pieces { weights, activations }
    }

    /// Sixteen bytes of activations.
    fn activation(&self, b: &mut Builder, from: Affine) -> Reg {
        match b.dtype(self.member.x) {
            DType::BF16 => b.words("x", self.member.x, from, 4),
            _ => b.load("x", self.member.x, from, 4),
        }
    }

    /// Asks for the pieces of a step.
    fn bring(&self, b: &mut Builder, pieces: &Pieces, step: Reg) {
        for piece in &pieces.weights {
            let new = self.load_many(b, &piece.from, at(step, K));
            b.set(piece.next, Inst::Copy(new));
        }
        for piece in &pieces.activations {
            let new = self.activation(b, piece.from.clone() + at(step, K));
            b.set(piece.next, Inst::Copy(new));
        }
    }

    /// Puts the pieces that were asked for into a buffer.
    fn store(&self, b: &mut Builder, tile: &Tile, pieces: &Pieces, buffer: Affine) {
        let [first, second] = &pieces.weights;
        self.store_many(b, &buffer, [&first.to, &second.to], [first.next, second.next]);
        for piece in &pieces.activations {
            let to = buffer.clone() + piece.to.clone();
            if tile.terms == 1 {
                b.store(self.memory, to, piece.next);
                continue;
            }
            for (i, pair) in (0..).zip(terms(b, piece.next)) {
                let pair = b.inst("pair", Inst::Join(pair.to_vec()));
                b.store(self.memory, to.clone() + i * tile.term(), pair);
            }
        }
    }

    /// Eight inputs of a row from shared memory.
    fn fragment(&self, b: &mut Builder, from: Affine) -> Words {
        let words = b.load("words", self.memory, from, 4);
        lanes(b, words)
    }

    /// What follows the sums of two neighbouring outputs, if there are such outputs and there is such a token.
    fn finish_pair(&self, b: &mut Builder, output: Affine, token: Affine, sums: Reg) {
        let all = self.member.outputs;
        let wanted = b.address("token", token.clone());
        let is_token = b.less(wanted, self.tokens);
        // Those that exist, for positions that are seen to lie inside.
        let token = self.token(b, token);
        let (output, is_output) = clamped(b, output, all - 1, parts(all, OUTPUTS) * OUTPUTS - 1);
        where_inside(b, is_output, |b| {
            where_inside(b, Some(is_token), |b| {
                let position = at(token, all) + output;
                self.member.epilogue(b, Affine::from(output), position, sums);
            });
        });
    }
}
