//! What the operations compute, lane by lane.

use super::*;

pub(super) fn unary(op: Unary, bits: u32) -> u32 {
    let float = f32::from_bits(bits);
    match op {
        Unary::Neg => (-float).to_bits(),
        Unary::Abs => float.abs().to_bits(),
        Unary::Sqrt => float.sqrt().to_bits(),
        Unary::Round => float.round_ties_even().to_bits(),
        Unary::Exp2 => float.exp2().to_bits(),
        Unary::ToI32 => float as i32 as u32,
        Unary::ToF32 => (bits as i32 as f32).to_bits(),
        Unary::BitsOf | Unary::FromBits => bits,
        Unary::ToIndex | Unary::IndexToI32 => unreachable!("the other side is an Index"),
    }
}

/// A function of two F32.
pub(super) fn float_binary(op: Binary) -> fn(f32, f32) -> f32 {
    match op {
        Binary::Add => |x, y| x + y,
        Binary::Sub => |x, y| x - y,
        Binary::Mul => |x, y| x * y,
        Binary::Div => |x, y| x / y,
        // Comparisons with NaN fail, so that the second operand is chosen.
        Binary::Min => |x, y| if x < y { x } else { y },
        Binary::Max => |x, y| if y < x { x } else { y },
        Binary::Rem | Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {
            unreachable!("types were checked")
        }
    }
}

/// A function of two I32 or Bool.
pub(super) fn int_binary(op: Binary) -> fn(i32, i32) -> i32 {
    match op {
        Binary::Add => i32::wrapping_add,
        Binary::Sub => i32::wrapping_sub,
        Binary::Mul => i32::wrapping_mul,
        Binary::Min => |x, y| x.min(y),
        Binary::Max => |x, y| x.max(y),
        Binary::And => |x, y| x & y,
        Binary::Or => |x, y| x | y,
        Binary::Xor => |x, y| x ^ y,
        // Both take the count modulo 32.
        Binary::Shl => |x, y| x.wrapping_shl(y as u32),
        Binary::Shr => |x, y| x.wrapping_shr(y as u32),
        Binary::Div | Binary::Rem => unreachable!("types were checked"),
    }
}

/// A function of two Index; nothing if the division is not allowed.
pub(super) fn index_binary(op: Binary, x: i64, y: i64) -> Option<i64> {
    Some(match op {
        Binary::Add => x.wrapping_add(y),
        Binary::Sub => x.wrapping_sub(y),
        Binary::Mul => x.wrapping_mul(y),
        Binary::Min => x.min(y),
        Binary::Max => x.max(y),
        Binary::Div if y > 0 => x / y,
        Binary::Rem if y > 0 && x >= 0 => x % y,
        Binary::Div | Binary::Rem => return None,
        Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {
            unreachable!("types were checked")
        }
    })
}

pub(super) fn compare<T: PartialOrd>(op: Compare, x: T, y: T) -> u32 {
    u32::from(match op {
        Compare::Eq => x == y,
        Compare::Ne => x != y,
        Compare::Lt => x < y,
        Compare::Le => x <= y,
    })
}

/// Two F32, rounded to a format of 16 bits, the first in the low half.
pub(super) fn pack(format: DType, pair: [u32; 2]) -> u32 {
    let [low, high] = pair.map(f32::from_bits).map(|x| match format {
        DType::F16 => half::f16::from_f32(x).to_bits(),
        DType::BF16 => half::bf16::from_f32(x).to_bits(),
        DType::F32 | DType::I32 | DType::I8 => unreachable!("formats were checked"),
    });
    u32::from(low) | u32::from(high) << 16
}

/// The two numbers in a word.
pub(super) fn unpack(format: DType, word: u32) -> [f64; 2] {
    [word as u16, (word >> 16) as u16].map(|bits| match format {
        DType::F16 => half::f16::from_bits(bits).to_f64(),
        DType::BF16 => half::bf16::from_bits(bits).to_f64(),
        DType::F32 | DType::I32 | DType::I8 => unreachable!("formats were checked"),
    })
}

/// `c + Σ aᵢ bᵢ` over the unsigned bytes of `a` and the signed ones of `b`.
pub(super) fn dot4(a: u32, b: u32, c: u32) -> u32 {
    let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    products.fold(c, |sum, (a, b)| {
        sum.wrapping_add_signed(i32::from(a) * i32::from(b as i8))
    })
}

/// Combines lanes in place: the lower half with the upper, until one is left.
pub(super) fn reduce(lanes: &mut [u32], combine: impl Fn(u32, u32) -> u32) -> u32 {
    let mut count = lanes.len();
    while count > 1 {
        count /= 2;
        for i in 0..count {
            lanes[i] = combine(lanes[i], lanes[count + i]);
        }
    }
    lanes[0]
}
