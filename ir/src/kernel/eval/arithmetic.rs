//! What the instructions compute that are not in the tables of operations.

use super::*;

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
