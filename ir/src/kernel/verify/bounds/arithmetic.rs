//! The values of instructions.

use super::*;

impl Proof<'_> {
    /// Whether a form certainly lies in a range.
    pub(super) fn fits(&self, form: &Linear, (least, most): (i64, i64)) -> bool {
        let [least, most] = [least, most].map(|n| Linear::constant(i128::from(n)));
        self.knowledge.is_at_most(&least, form) && self.knowledge.is_at_most(form, &most)
    }

    /// The form, if the register can hold it; else an unknown, since the value may have wrapped.
    fn unless_wrapped(&mut self, form: Option<Linear>, range: (i64, i64)) -> Linear {
        match form {
            Some(form) if self.fits(&form, range) => form,
            _ => self.knowledge.unknown(range, vec![], vec![]),
        }
    }

    /// The value of a scalar Index or I32 instruction.
    pub(super) fn value(&mut self, reg: Reg, inst: &Inst) -> Result<Option<Linear>, Fault> {
        let Some(range) = self.range(reg) else {
            return Ok(None);
        };
        let value = match *inst {
            Inst::Int(n) => Some(Linear::constant(i128::from(n))),
            Inst::Index(n) => Some(Linear::constant(i128::from(n))),
            Inst::Tokens => Some(Linear::of_tokens(0, 1)),
            Inst::Address(ref at) => {
                let sum = self.affine(at);
                Some(self.unless_wrapped(sum, range))
            }
            Inst::Copy(a) | Inst::Unary(Unary::ToIndex, a) => self.get(a),
            Inst::Unary(Unary::IndexToI32, a) => {
                let value = self.get(a);
                Some(self.unless_wrapped(value, range))
            }
            Inst::Binary(op, a, b) => self.binary(op, a, b, range)?,
            Inst::Select(condition, a, b) => self.select(condition, a, b, range),
            _ => None,
        };
        Ok(value.or_else(|| self.anything(reg)))
    }

    fn binary(&mut self, op: Binary, a: Reg, b: Reg, range: (i64, i64)) -> Result<Option<Linear>, Fault> {
        let (Some(x), Some(y)) = (self.get(a), self.get(b)) else {
            return Ok(None);
        };
        Ok(Some(match op {
            Binary::Add => self.unless_wrapped(x.plus(&y), range),
            Binary::Sub => self.unless_wrapped(x.minus(&y), range),
            Binary::Mul => match (x.as_constant(), y.as_constant()) {
                (Some(n), _) => self.unless_wrapped(y.times(n), range),
                (_, Some(n)) => self.unless_wrapped(x.times(n), range),
                (None, None) => self.product(&x, &y, range),
            },
            Binary::Min | Binary::Max => self.extremum(op, x, y, range),
            Binary::Div | Binary::Rem => {
                let divisor = y.as_constant().filter(|&n| n > 0);
                let divisor = divisor.ok_or_else(|| Fault::Divisor(self.report.reg(b)))?;
                let is_not_negative = self.knowledge.is_not_negative(&x);
                if op == Binary::Div {
                    self.quotient(&x, divisor, is_not_negative)
                } else if is_not_negative {
                    self.remainder(x, divisor)
                } else {
                    let least = self.knowledge.describe(Some(&x), Side::Lower);
                    return Err(Fault::Dividend {
                        dividend: self.report.reg(a),
                        least,
                    });
                }
            }
            Binary::And => match x
                .as_constant()
                .into_iter()
                .chain(y.as_constant())
                .find(|&n| n >= 0)
            {
                Some(mask) => {
                    let bounds = [0, mask].map(|n| vec![Linear::constant(n)]);
                    let [lower, upper] = bounds;
                    self.knowledge.unknown(range, lower, upper)
                }
                None => return Ok(None),
            },
            Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => return Ok(None),
        }))
    }

    /// The product of two values, one of which has bounds that are numbers while the other is not negative.
    fn product(&mut self, x: &Linear, y: &Linear, range: (i64, i64)) -> Linear {
        let is_positive = [x, y].map(|form| self.knowledge.is_not_negative(form)) == [true, true];
        if !is_positive {
            return self.knowledge.unknown(range, vec![], vec![]);
        }
        let most = |form| {
            let bounds = self.knowledge.of_tokens(form, Side::Upper);
            bounds
                .iter()
                .find_map(|bound| bound.tightened(true).as_constant())
        };
        let upper: Vec<Linear> = [(x, y), (y, x)]
            .into_iter()
            .filter_map(|(factor, other)| other.times(most(factor)?))
            .filter(|upper| self.fits(upper, range))
            .collect();
        // Without an upper bound in range it may wrap, unless the greatest values do not.
        let greatest = |form: &Linear| {
            let bounds = self.knowledge.of_tokens(form, Side::Upper);
            let at_most = bounds.iter().filter_map(|bound| {
                let (constant, factor, _) = bound.as_tokens()?;
                constant
                    .max(0)
                    .checked_add(factor.max(0).checked_mul(i128::from(MAX_TOKENS))?)
            });
            at_most.min()
        };
        let fits = || {
            greatest(x)?
                .checked_mul(greatest(y)?)
                .filter(|&n| n <= i128::from(range.1))
        };
        let lower = if upper.is_empty() && fits().is_none() {
            vec![]
        } else {
            vec![Linear::constant(0)]
        };
        self.knowledge.unknown(range, lower, upper)
    }

    fn extremum(&mut self, op: Binary, x: Linear, y: Linear, range: (i64, i64)) -> Linear {
        let is_min = op == Binary::Min;
        for (a, b) in [(&x, &y), (&y, &x)] {
            let is_it = if is_min {
                self.knowledge.is_at_most(a, b)
            } else {
                self.knowledge.is_at_most(b, a)
            };
            if is_it {
                return a.clone();
            }
        }
        // On one side each operand is a bound, on the other what bounds both.
        let side = if is_min { Side::Lower } else { Side::Upper };
        let both = self.around(&x, &y, side);
        let (lower, upper) = if is_min {
            (both, vec![x, y])
        } else {
            (vec![x, y], both)
        };
        self.knowledge.unknown(range, lower, upper)
    }

    /// A bound in `T` of two values, whichever it is.
    fn around(&self, x: &Linear, y: &Linear, side: Side) -> Vec<Linear> {
        let bounds = [x, y].map(|form| self.knowledge.of_tokens(form, side));
        around_bounds(&bounds[0], &bounds[1], side)
    }

    fn select(&mut self, condition: Reg, a: Reg, b: Reg, range: (i64, i64)) -> Option<Linear> {
        let values = [self.get(a)?, self.get(b)?];
        let condition = self.conditions[condition.0 as usize].clone();
        // Bounds of each value where it is the chosen one.
        let mut bounds = [Side::Lower, Side::Upper].map(|_| vec![]);
        for (value, holds) in values.iter().zip([true, false]) {
            let mark = self.knowledge.mark();
            if let Some(condition) = &condition {
                self.suppose(condition, holds);
            }
            for (bounds, side) in bounds.iter_mut().zip([Side::Lower, Side::Upper]) {
                bounds.push(self.knowledge.of_tokens(value, side));
            }
            self.knowledge.forget(mark);
        }
        let lower = around_bounds(&bounds[0][0], &bounds[0][1], Side::Lower);
        let upper = around_bounds(&bounds[1][0], &bounds[1][1], Side::Upper);
        Some(self.knowledge.unknown(range, lower, upper))
    }

    /// Truncating division by a positive number.
    fn quotient(&mut self, x: &Linear, divisor: i128, is_not_negative: bool) -> Linear {
        if x.moves_by(divisor) && x.constant_part() % divisor == 0 {
            return x
                .over(divisor)
                .unwrap_or_else(|| self.knowledge.unknown(INDEX, vec![], vec![]));
        }
        if is_not_negative && self.knowledge.is_at_most(x, &Linear::constant(divisor - 1)) {
            return Linear::constant(0);
        }
        let at_most = if is_not_negative { 0 } else { divisor - 1 };
        let over = |n| x.offset(n).and_then(|form| form.over(divisor));
        let mut lower: Vec<Linear> = over(1 - divisor).into_iter().collect();
        if is_not_negative {
            lower.push(Linear::constant(0));
        }
        let upper = over(at_most).into_iter().collect();
        self.knowledge.unknown(INDEX, lower, upper)
    }

    /// The remainder of a value that is not negative.
    fn remainder(&mut self, x: Linear, divisor: i128) -> Linear {
        let most = Linear::constant(divisor - 1);
        if self.knowledge.is_at_most(&x, &most) {
            return x;
        }
        if x.moves_by(divisor) {
            return Linear::constant(x.constant_part().rem_euclid(divisor));
        }
        self.knowledge
            .unknown(INDEX, vec![Linear::constant(0)], vec![most, x])
    }
}

/// For any two bounds, the line through or beyond both for every `T ≥ 1`: at `T = 1` and in slope the outer of each.
fn around_bounds(a: &[Linear], b: &[Linear], side: Side) -> Vec<Linear> {
    let mut lines = vec![];
    for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (a, b))) {
        let (Some((ca, fa, da)), Some((cb, fb, db))) = (a.as_tokens(), b.as_tokens()) else {
            continue;
        };
        let outer = |p: i128, q: i128| if side == Side::Upper { p.max(q) } else { p.min(q) };
        let line = || {
            let slope = outer(fa.checked_mul(db)?, fb.checked_mul(da)?);
            let at_one = outer(
                ca.checked_add(fa)?.checked_mul(db)?,
                cb.checked_add(fb)?.checked_mul(da)?,
            );
            Linear::of_tokens(at_one.checked_sub(slope)?, slope).over(da.checked_mul(db)?)
        };
        lines.extend(line());
    }
    lines
}
