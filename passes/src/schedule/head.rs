//! The buffers of a head's WKV-7 block.

use rwkvc_ir::graph::ops::Wkv7Block;
use rwkvc_ir::kernel::Buf;

use super::Scope;

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
