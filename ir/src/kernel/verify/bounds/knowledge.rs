//! What is known of unknowns, and what follows from it.

use super::linear::{Linear, TOKENS, Unknown};
use crate::kernel::verify::MAX_TOKENS;

/// Substitutions that one proof tries, at most.
const MAX_TRIES: usize = 400;

/// Bounds that are kept of an unknown on one side, at most.
const MAX_BOUNDS: usize = 8;

/// Bounds in `T` that are derived at once, at most.
const MAX_DERIVED: usize = 3;

/// Bounds of an unknown on one side, each of earlier unknowns. The first mentions only `T`, or nothing for `T` itself.
type Bounds = Vec<Linear>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Lower,
    Upper,
}

impl Side {
    fn index(self) -> usize {
        self as usize
    }

    /// Where to bound an unknown with this factor in order to bound the sum on this side.
    fn of_factor(self, factor: i128) -> Side {
        match (self, factor > 0) {
            (Side::Lower, true) | (Side::Upper, false) => Side::Lower,
            (Side::Lower, false) | (Side::Upper, true) => Side::Upper,
        }
    }
}

pub(super) struct Knowledge {
    /// For each unknown, lower and upper bounds.
    bounds: Vec<[Bounds; 2]>,
    /// Bounds to restore, newest last.
    undo: Vec<(Unknown, Side, Bounds)>,
    /// The length of `undo` when facts became contradictory: no run gets here.
    impossible: Option<usize>,
}

impl Knowledge {
    pub(super) fn new() -> Self {
        let tokens = [1, MAX_TOKENS].map(|n| vec![Linear::constant(i128::from(n))]);
        Knowledge {
            bounds: vec![tokens],
            undo: vec![],
            impossible: None,
        }
    }

    /// A new unknown of a number format, with what else is known of it.
    pub(super) fn unknown(
        &mut self,
        (least, most): (i64, i64),
        lower: Vec<Linear>,
        upper: Vec<Linear>,
    ) -> Linear {
        let mut sides = [vec![], vec![]];
        for (side, limit, given) in [(Side::Lower, least, lower), (Side::Upper, most, upper)] {
            let bounds = &mut sides[side.index()];
            for form in &given {
                bounds.extend(
                    self.of_tokens(form, side)
                        .into_iter()
                        .map(|b| b.tightened(side == Side::Upper)),
                );
            }
            bounds.push(Linear::constant(i128::from(limit)));
            keep_best(bounds, side);
            bounds.extend(given.into_iter().filter(|form| form.as_tokens().is_none()));
            bounds.truncate(MAX_BOUNDS);
        }
        self.bounds.push(sides);
        Linear::unknown(Unknown(self.bounds.len() as u32 - 1))
    }

    fn of(&self, unknown: Unknown, side: Side) -> &Bounds {
        &self.bounds[unknown.0 as usize][side.index()]
    }

    /// Bounds of a form in `T`, the best first; at least one unless numbers grow too large.
    pub(super) fn of_tokens(&self, form: &Linear, side: Side) -> Bounds {
        let mut found = vec![];
        let mut tries = MAX_TRIES / 4;
        self.collect(form, side, &mut tries, &mut found);
        found
    }

    fn collect(&self, form: &Linear, side: Side, tries: &mut usize, found: &mut Bounds) {
        let Some((last, factor)) = form.last().filter(|_| form.as_tokens().is_none()) else {
            found.push(form.clone());
            keep_best(found, side);
            return;
        };
        for bound in self.of(last, side.of_factor(factor)) {
            if *tries == 0 {
                return;
            }
            *tries -= 1;
            if let Some(form) = form.replace_last(bound) {
                self.collect(&form, side, tries, found);
            }
        }
    }

    /// The best bound of a form in `T`, for messages.
    pub(super) fn describe(&self, form: Option<&Linear>, side: Side) -> String {
        let best = form.and_then(|form| self.of_tokens(form, side).into_iter().next());
        match (best, side) {
            (Some(best), _) => best.tightened(side == Side::Upper).to_string(),
            (None, Side::Lower) => "-∞".to_owned(),
            (None, Side::Upper) => "∞".to_owned(),
        }
    }

    /// Whether a form is certainly not negative.
    pub(super) fn is_not_negative(&self, form: &Linear) -> bool {
        if self.impossible.is_some() {
            return true;
        }
        // The plain ways first; most proofs end there.
        let in_tokens = self.follow(form.clone(), |bounds| bounds.first());
        let in_unknowns = || self.follow(form.clone(), |bounds| bounds.last());
        in_tokens || in_unknowns() || self.search(form, &mut { MAX_TRIES })
    }

    /// Whether one way of choosing bounds leads to a number that is not negative.
    fn follow(&self, mut form: Linear, choose: impl Fn(&Bounds) -> Option<&Linear>) -> bool {
        while let Some((last, factor)) = form.last() {
            let bound = choose(self.of(last, Side::Lower.of_factor(factor)));
            match bound.and_then(|bound| form.replace_last(bound)) {
                Some(next) => form = next,
                None => return false,
            }
        }
        form.constant_part() >= 0
    }

    /// Whether `a ≤ b` for certain.
    pub(super) fn is_at_most(&self, a: &Linear, b: &Linear) -> bool {
        b.minus(a)
            .is_some_and(|difference| self.is_not_negative(&difference))
    }

    fn search(&self, form: &Linear, tries: &mut usize) -> bool {
        let Some((last, factor)) = form.last() else {
            return form.constant_part() >= 0;
        };
        for bound in self.of(last, Side::Lower.of_factor(factor)) {
            if *tries == 0 {
                return false;
            }
            *tries -= 1;
            if form
                .replace_last(bound)
                .is_some_and(|form| self.search(&form, tries))
            {
                return true;
            }
        }
        false
    }

    /// Where knowledge stands now.
    pub(super) fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Forgets all facts since the mark.
    pub(super) fn forget(&mut self, mark: usize) {
        self.impossible = self.impossible.filter(|&since| since < mark);
        for (unknown, side, bounds) in self.undo.drain(mark..).rev() {
            self.bounds[unknown.0 as usize][side.index()] = bounds;
        }
    }

    /// Takes it as a fact that a form is not negative.
    pub(super) fn learn(&mut self, fact: &Linear) {
        let Some((last, _)) = fact.last() else {
            if fact.constant_part() < 0 {
                self.impossible.get_or_insert(self.undo.len());
            }
            return;
        };
        for &(unknown, _) in fact.terms() {
            let Some((bound, factor)) = fact.solve(unknown) else {
                continue;
            };
            let side = if factor > 0 { Side::Lower } else { Side::Upper };
            let is_upper = side == Side::Upper;
            let mut derived: Vec<Linear> = self
                .of_tokens(&bound, side)
                .iter()
                .map(|b| b.tightened(is_upper))
                .collect();
            if unknown == TOKENS {
                // Bounds of `T` are numbers.
                derived.retain(|bound| bound.terms().is_empty());
            }
            let old = self.of(unknown, side).clone();
            let (mut plain, mut others): (Bounds, Bounds) =
                old.iter().cloned().partition(|bound| bound.as_tokens().is_some());
            plain.extend(derived);
            keep_best(&mut plain, side);
            if unknown == last && bound.as_tokens().is_none() {
                others.insert(0, bound);
            }
            plain.extend(others);
            plain.truncate(MAX_BOUNDS);
            self.undo.push((unknown, side, old));
            self.bounds[unknown.0 as usize][side.index()] = plain;
        }
    }
}

/// The value of a form of `T`, times its divisor.
fn at(form: &Linear, tokens: i128) -> Option<i128> {
    let (constant, factor, _) = form.as_tokens()?;
    factor.checked_mul(tokens)?.checked_add(constant)
}

/// Whether bound `a` is as good as `b` for every `T`: at both ends, since both are lines.
fn is_as_good(a: &Linear, b: &Linear, side: Side) -> bool {
    let difference = if side == Side::Upper {
        b.minus(a)
    } else {
        a.minus(b)
    };
    let ends = [1, i128::from(MAX_TOKENS)];
    difference.is_some_and(|d| ends.iter().all(|&tokens| at(&d, tokens).is_some_and(|n| n >= 0)))
}

/// Of forms of `T`, keeps those that no other replaces, the best at a usual `T` first.
fn keep_best(bounds: &mut Bounds, side: Side) {
    const USUAL: i128 = 1000;
    let mut best: Bounds = vec![];
    for bound in bounds.drain(..) {
        if best.iter().any(|other| is_as_good(other, &bound, side)) {
            continue;
        }
        best.retain(|other| !is_as_good(&bound, other, side));
        best.push(bound);
    }
    best.sort_by_cached_key(|bound| {
        let divisor = bound.as_tokens().map_or(1, |(_, _, divisor)| divisor);
        let value = at(bound, USUAL).map_or(i128::MAX, |n| n.div_euclid(divisor));
        if side == Side::Upper {
            value
        } else {
            value.saturating_neg()
        }
    });
    best.truncate(MAX_DERIVED);
    *bounds = best;
}
