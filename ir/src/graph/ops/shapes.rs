//! Checks that ops share.

use crate::DType;
use crate::graph::types::Shape;
use crate::graph::{Dim, TensorType, TypeError};

/// The operands, if there are `N`.
pub(crate) fn exactly<const N: usize>(operands: &[TensorType]) -> Result<[&TensorType; N], TypeError> {
    let all: Vec<&TensorType> = operands.iter().collect();
    let found = all.len();
    all.try_into().map_err(|_| TypeError::OperandCount {
        expected: N.to_string(),
        found,
    })
}

/// An operand error, unless `ok`.
pub(crate) fn ensure(
    ok: bool,
    operand: &str,
    found: &TensorType,
    expected: impl Into<String>,
) -> Result<(), TypeError> {
    if ok {
        return Ok(());
    }
    Err(TypeError::Operand {
        operand: operand.into(),
        found: found.clone(),
        expected: expected.into(),
    })
}

/// Checks that an operand has a float format.
pub(crate) fn float(operand: &str, ty: &TensorType) -> Result<(), TypeError> {
    ensure(ty.dtype.is_float(), operand, ty, "a float format")
}

/// Checks that an operand has a float format and this shape.
pub(crate) fn has_shape(operand: &str, ty: &TensorType, shape: &[Dim]) -> Result<(), TypeError> {
    float(operand, ty)?;
    ensure(ty.shape == shape, operand, ty, format!("shape {}", Shape(shape)))
}

/// The axes of an operand with a float format, if there are `N`.
pub(crate) fn axes<const N: usize>(operand: &str, ty: &TensorType) -> Result<[Dim; N], TypeError> {
    float(operand, ty)?;
    ty.shape.clone().try_into().map_err(|_| TypeError::Operand {
        operand: operand.into(),
        found: ty.clone(),
        expected: format!("{N} axes"),
    })
}

/// The axes of an operand with a float format: all but the last, and the last.
pub(crate) fn rows<'a>(operand: &str, ty: &'a TensorType) -> Result<(&'a [Dim], Dim), TypeError> {
    float(operand, ty)?;
    match ty.shape.split_last() {
        Some((&last, rest)) => Ok((rest, last)),
        None => Err(TypeError::Operand {
            operand: operand.into(),
            found: ty.clone(),
            expected: "at least 1 axis".into(),
        }),
    }
}

/// Checks a small addend or divisor.
pub(crate) fn not_negative(attribute: &'static str, value: f64) -> Result<(), TypeError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let expected = "a finite number that is not negative".into();
    Err(TypeError::Attribute {
        attribute,
        found: value.to_string(),
        expected,
    })
}

/// An f32 result.
pub(crate) fn f32_of(shape: impl IntoIterator<Item = Dim>) -> TensorType {
    TensorType::new(DType::F32, shape)
}

/// The result of an element-wise function of `n` operands: they have float formats, and their shapes broadcast.
pub(crate) fn elementwise(operands: &[TensorType], n: usize) -> Result<Vec<TensorType>, TypeError> {
    if operands.len() != n {
        return Err(TypeError::OperandCount {
            expected: n.to_string(),
            found: operands.len(),
        });
    }
    const NAMES: [&str; 3] = ["x", "y", "z"];
    let mut shape = vec![];
    for (i, (operand, name)) in operands.iter().zip(NAMES).enumerate() {
        float(name, operand)?;
        let joined = broadcast(&shape, &operand.shape);
        shape = joined.ok_or_else(|| TypeError::Operand {
            operand: name.into(),
            found: operand.clone(),
            expected: format!("to broadcast with {}", operands[i.saturating_sub(1)]),
        })?;
    }
    Ok(vec![f32_of(shape)])
}

/// The shape that two shapes broadcast to: aligned at the last axis, an axis of 1 is repeated.
fn broadcast(x: &[Dim], y: &[Dim]) -> Option<Vec<Dim>> {
    let rank = x.len().max(y.len());
    let axis = |shape: &[Dim], i: usize| match (i + shape.len()).checked_sub(rank) {
        Some(i) => shape[i],
        None => Dim::Fixed(1),
    };
    (0..rank)
        .map(|i| match (axis(x, i), axis(y, i)) {
            (a, b) if a == b => Some(a),
            (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => Some(other),
            _ => None,
        })
        .collect()
}
