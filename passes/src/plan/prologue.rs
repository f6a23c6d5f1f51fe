//! Prologue fusion: products of one token compute the token shift before them themselves, on a GPU, where a launch takes as long
//! as its work. The next state is a deferred state write: a later launch writes it.
//!
//! ```text
//! %x_r, %x_k, %next = norm_shift_mix …, %prev, …    each block normalises and mixes what it multiplies, and reads %prev
//! %r, %k = linear_group %x_r, %w_r, %x_k, %w_k   →  one block leaves %next in the arena
//! %w = linear_group …                               blocks of a later product carry it to %prev, when nobody reads that any more
//! ```

use rwkvc_backend_api::Features;
use rwkvc_ir::graph::ops::{LinearGroup, Member, NormShiftMix, Op};
use rwkvc_ir::graph::{Dim, Graph, NodeId, Value};

/// A token shift and the products that take its place.
pub(super) struct Joined {
    /// The `norm_shift_mix`.
    pub(super) norm: NodeId,
    /// The `linear_group` of its mixes.
    pub(super) group: NodeId,
    /// The product whose launch carries the next state to its place.
    pub(super) carrier: NodeId,
    /// What the norm adds to the variance.
    pub(super) eps: f64,
    /// The members of the group.
    pub(super) members: Vec<Member>,
    /// For each member the number of its mix.
    pub(super) mixes: Vec<usize>,
}

impl Joined {
    /// All of a graph, in its order.
    pub(super) fn all(graph: &Graph, features: &Features) -> Vec<Joined> {
        if matches!(features, Features::Cpu(_)) {
            return vec![];
        }
        let order = graph.topological();
        let mut found: Vec<Joined> = order.iter().filter_map(|&node| Joined::of(graph, node)).collect();
        let mut kept = vec![];
        for mut joined in std::mem::take(&mut found) {
            let is_product = |node: NodeId| {
                let is_op = matches!(graph.op(node), Op::Linear(_) | Op::LinearGroup(_));
                is_op && !graph.is_constant(graph.value(node, 0)) && Joined::of(graph, node).is_none()
            };
            let later = order.iter().skip_while(|&&node| node != joined.group).skip(1);
            let taken = |node: NodeId| kept.iter().any(|k: &Joined| k.carrier == node);
            if let Some(&carrier) = later.into_iter().find(|&&node| is_product(node) && !taken(node)) {
                joined.carrier = carrier;
                kept.push(joined);
            }
        }
        kept
    }

    /// The products `group` with the token shift before it, if nobody else reads its mixes and there is one token.
    fn of(graph: &Graph, group: NodeId) -> Option<Joined> {
        let Op::LinearGroup(op) = graph.op(group) else {
            return None;
        };
        let operands = graph.operands(group);
        let xs: Vec<Value> = inputs(op).map(|i| operands[i]).collect();
        let norm = xs[0].node;
        let one = [Dim::Fixed(1), Dim::Fixed(1)];
        let Op::NormShiftMix(NormShiftMix { eps }) = *graph.op(norm) else {
            return None;
        };
        let fits = graph.ty(xs[0]).shape[..2] == one
            && op.members.iter().all(|m| !m.skip_zeros)
            && xs.iter().all(|x| x.node == norm);
        if !fits {
            return None;
        }
        let n_mixes = graph.results(norm) - 1;
        let results = (0..n_mixes).map(|i| graph.value(norm, i));
        let is_own = |v: Value| {
            !graph.is_output(v)
                && graph
                    .users(v)
                    .iter()
                    .all(|&(user, i)| user == group && inputs(op).any(|x| x == i))
        };
        let next = graph.value(norm, n_mixes);
        let state = graph.operands(norm)[3];
        let is_state = graph.users(next).is_empty()
            && graph.users(state).len() == 1
            && matches!(graph.op(state.node), Op::Input(input) if graph.output(&input.name) == Some(next));
        if !is_state || !results.into_iter().all(is_own) {
            return None;
        }
        let mix_of = |x: &Value| (0..n_mixes).find(|&i| graph.value(norm, i) == *x);
        Some(Joined {
            norm,
            group,
            carrier: group,
            eps,
            members: op.members.clone(),
            mixes: xs.iter().map(mix_of).collect::<Option<_>>()?,
        })
    }

    /// What the launch reads: the operands of the token shift, then those of the products but their mixes.
    pub(super) fn operands(&self, graph: &Graph) -> Vec<Value> {
        let mut all = graph.operands(self.norm);
        if let Op::LinearGroup(op) = graph.op(self.group) {
            let of_group = graph.operands(self.group).into_iter().enumerate();
            all.extend(
                of_group
                    .filter(|(i, _)| inputs(op).all(|x| x != *i))
                    .map(|(_, v)| v),
            );
        }
        all
    }

    /// The next value of the state, and the state.
    pub(super) fn next(&self, graph: &Graph) -> [Value; 2] {
        [
            graph.value(self.norm, graph.results(self.norm) - 1),
            graph.operands(self.norm)[3],
        ]
    }
}

/// The operands of a group that are multiplied.
fn inputs(group: &LinearGroup) -> impl Iterator<Item = usize> + '_ {
    group.weight_operands().map(|w| w - 1)
}
