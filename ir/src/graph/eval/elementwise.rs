//! Functions of single elements.

use super::{Data, Real};
use crate::graph::ops::Elementwise;

/// An element-wise op of one or two operands, as `infer` has checked.
pub(crate) fn eval<'a, F: Real, O: Elementwise>(_: &O, operands: &[Data<'a, F>]) -> Data<'a, F> {
    match operands {
        [x, y] => binary(x, y, |x, y| O::apply(&[x, y])),
        [x] => unary(x, |x| O::apply(&[x])),
        _ => unreachable!("element-wise ops have one operand or two"),
    }
}

/// `f` of each element.
pub(crate) fn unary<'a, F: Real>(x: &Data<'a, F>, f: impl Fn(F) -> F) -> Data<'a, F> {
    Data::dense(x.shape().to_vec(), x.values().iter().map(|&x| f(x)).collect())
}

/// `f` of each pair of elements. Shapes are aligned at the last axis and an axis of 1 is repeated.
pub(crate) fn binary<'a, F: Real>(x: &Data<'a, F>, y: &Data<'a, F>, f: impl Fn(F, F) -> F) -> Data<'a, F> {
    let rank = x.shape().len().max(y.shape().len());
    let (x_shape, y_shape) = (padded(x.shape(), rank), padded(y.shape(), rank));
    let shape: Vec<usize> = x_shape
        .iter()
        .zip(&y_shape)
        .map(|(&a, &b)| if a == 1 { b } else { a })
        .collect();
    let (x_steps, y_steps) = (steps(&x_shape), steps(&y_shape));
    let (x, y) = (x.values(), y.values());
    let len = shape.iter().product();
    let mut z = Vec::with_capacity(len);
    let (width, x_step, y_step) = match rank {
        0 => (1, 0, 0),
        _ => (shape[rank - 1], x_steps[rank - 1], y_steps[rank - 1]),
    };
    // Position of the row in all axes but the last.
    let mut index = vec![0; rank.saturating_sub(1)];
    while z.len() < len {
        let start = |steps: &[usize]| index.iter().zip(steps).map(|(i, s)| i * s).sum::<usize>();
        let (x_row, y_row) = (&x[start(&x_steps)..], &y[start(&y_steps)..]);
        z.extend((0..width).map(|i| f(x_row[i * x_step], y_row[i * y_step])));
        for (i, &n) in index.iter_mut().zip(&shape).rev() {
            *i += 1;
            if *i < n {
                break;
            }
            *i = 0;
        }
    }
    Data::dense(shape, z)
}

/// The shape with axes of 1 in front.
fn padded(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut padded = vec![1; rank - shape.len()];
    padded.extend_from_slice(shape);
    padded
}

/// How far apart neighbours along each axis are; 0 along a repeated axis.
fn steps(shape: &[usize]) -> Vec<usize> {
    let mut steps = vec![0; shape.len()];
    let mut step = 1;
    for (axis, &n) in shape.iter().enumerate().rev() {
        if n > 1 {
            steps[axis] = step;
        }
        step *= n;
    }
    steps
}
