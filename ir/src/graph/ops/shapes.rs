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

/// The result of a function of one operand, element by element.
pub(crate) fn same(operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let [x] = exactly(operands)?;
    float("x", x)?;
    Ok(vec![f32_of(x.shape.iter().copied())])
}

/// The result of a function of two operands, element by element.
pub(crate) fn broadcast(operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let [x, y] = exactly(operands)?;
    float("x", x)?;
    float("y", y)?;
    let rank = x.shape.len().max(y.shape.len());
    let axis = |ty: &TensorType, from_last: usize| match ty.shape.len().checked_sub(from_last + 1) {
        Some(i) => ty.shape[i],
        None => Dim::Fixed(1),
    };
    let mut shape = vec![];
    for i in (0..rank).rev() {
        let (a, b) = (axis(x, i), axis(y, i));
        ensure(
            a == b || a == Dim::Fixed(1) || b == Dim::Fixed(1),
            "y",
            y,
            format!("to broadcast with {x}"),
        )?;
        shape.push(if a == Dim::Fixed(1) { b } else { a });
    }
    Ok(vec![f32_of(shape)])
}
