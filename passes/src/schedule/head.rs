//! The heads of states, and the buffers of a head's WKV-7 block.

use rwkvc_ir::graph::ops::Wkv7Block;
use rwkvc_ir::kernel::{Buf, Extent};

use super::rows::by_token;
use super::{Scope, Tensor};

/// The heads of a state and the tokens that each sees.
pub(super) struct Heads {
    pub(super) count: i64,
    /// Channels of a head.
    pub(super) n: i64,
    /// States: more than one in a batch.
    pub(super) states: Extent,
    /// Tokens of one state.
    pub(super) tokens: Extent,
}

impl Heads {
    pub(super) fn of(state: &Tensor, x: &Tensor) -> Heads {
        let n = state.last();
        let (states, each) = by_token(state.len());
        let count = each / (n * n);
        let in_batch = states != Extent::fixed(1);
        let tokens = Extent {
            fixed: x.len().fixed / (count * n),
            per_token: x.len().per_token / (count * n),
        };
        Heads {
            count,
            n,
            states,
            tokens: if in_batch { Extent::fixed(1) } else { tokens },
        }
    }
}

/// The parameters of a `wkv7_block` kernel, in the order of its operands.
pub(super) struct HeadBuffers {
    pub(super) state: Buf,
    pub(super) r: Buf,
    pub(super) w: Buf,
    pub(super) k: Buf,
    pub(super) v: Buf,
    pub(super) a: Buf,
    pub(super) g: Buf,
    pub(super) k_k: Buf,
    pub(super) k_a: Buf,
    pub(super) r_k: Buf,
    pub(super) ln_weight: Buf,
    pub(super) ln_bias: Buf,
    /// The value of block 0 and how much of it is mixed in.
    pub(super) residual: Option<(Buf, Buf)>,
    pub(super) out: Buf,
}

impl HeadBuffers {
    pub(super) fn open<F>(s: &mut Scope<'_, F>, op: &Wkv7Block) -> Self {
        HeadBuffers {
            state: s.update("state", 0),
            r: s.read("r", 1),
            w: s.read("w", 2),
            k: s.read("k", 3),
            v: s.read("v", 4),
            a: s.read("a", 5),
            g: s.read("g", 6),
            k_k: s.read("k_k", 7),
            k_a: s.read("k_a", 8),
            r_k: s.read("r_k", 9),
            ln_weight: s.read("ln_weight", 10),
            ln_bias: s.read("ln_bias", 11),
            residual: op
                .value_residual
                .then(|| (s.read("v_first", 12), s.read("v_gate", 13))),
            out: s.write("y", 1),
        }
    }
}
