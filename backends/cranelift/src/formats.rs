//! Conversions between what registers hold and the shorter formats, in integer arithmetic and exact multiplications.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self, ConstantData, Endianness, InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::FunctionBuilder;
use rwkvc_ir::DType;

use crate::shape::Width;

/// The same bits as another type of the same size.
pub(crate) fn cast(b: &mut FunctionBuilder<'_>, ty: ir::Type, value: Value) -> Value {
    if b.func.dfg.value_type(value) == ty {
        return value;
    }
    b.ins()
        .bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), value)
}

/// `bits` in each lane.
fn int(b: &mut FunctionBuilder<'_>, width: Width, bits: u32) -> Value {
    match width {
        Width::One => b.ins().iconst(types::I32, i64::from(bits)),
        Width::Four => {
            let bytes = bits.to_le_bytes().repeat(4);
            let constant = b.func.dfg.constants.insert(ConstantData::from(bytes));
            b.ins().vconst(types::I32X4, constant)
        }
    }
}

/// `bits` in each of eight 16-bit lanes.
pub(crate) fn int16(b: &mut FunctionBuilder<'_>, bits: u16) -> Value {
    let constant = b
        .func
        .dfg
        .constants
        .insert(ConstantData::from(bits.to_le_bytes().repeat(8)));
    b.ins().vconst(types::I16X8, constant)
}

/// `value` in each lane.
fn float(b: &mut FunctionBuilder<'_>, width: Width, value: f32) -> Value {
    match width {
        Width::One => b.ins().f32const(value),
        Width::Four => {
            let bits = int(b, width, value.to_bits());
            cast(b, width.float(), bits)
        }
    }
}

/// Lane by lane `x` where the condition holds, else `y`.
pub(crate) fn choose(
    b: &mut FunctionBuilder<'_>,
    width: Width,
    condition: Value,
    x: Value,
    y: Value,
) -> Value {
    match width {
        Width::One => b.ins().select(condition, x, y),
        // On integers, Cranelift recognizes every comparison as a mask and blends.
        Width::Four => {
            let ty = b.func.dfg.value_type(x);
            let (x, y) = (cast(b, types::I32X4, x), cast(b, types::I32X4, y));
            let chosen = b.ins().bitselect(condition, x, y);
            cast(b, ty, chosen)
        }
    }
}

/// `lanes[i]` of sixteen bytes of `x` followed by sixteen of `y`.
pub(crate) fn shuffle(b: &mut FunctionBuilder<'_>, x: Value, y: Value, lanes: [u8; 16]) -> Value {
    let (x, y) = (cast(b, types::I8X16, x), cast(b, types::I8X16, y));
    let lanes = b.func.dfg.immediates.push(ConstantData::from(lanes.to_vec()));
    b.ins().shuffle(x, y, lanes)
}

/// Eight 16-bit elements as twice four F32 lanes.
pub(crate) fn widen_vector(b: &mut FunctionBuilder<'_>, dtype: DType, halves: Value) -> [Value; 2] {
    const LOW: [u8; 16] = [0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23];
    let halves = cast(b, types::I16X8, halves);
    // The lower and upper 16 bits of each f32.
    let (lower, upper) = match dtype {
        DType::F16 => {
            let shifted = b.ins().sshr_imm_u(halves, 3);
            let mask = int16(b, 0x8fff);
            let moved = b.ins().band(shifted, mask);
            let largest = int16(b, 0x7c00);
            let exponent = b.ins().band(halves, largest);
            let special = b.ins().icmp(IntCC::Equal, exponent, largest);
            let exponent = int16(b, 0x7f80);
            let exponent = b.ins().band(special, exponent);
            (b.ins().ishl_imm_u(halves, 13), b.ins().bor(moved, exponent))
        }
        _ => (int16(b, 0), halves),
    };
    [LOW, LOW.map(|lane| lane + 8)].map(|lanes| {
        let value = shuffle(b, lower, upper, lanes);
        let value = cast(b, types::F32X4, value);
        correct_bias(b, Width::Four, dtype, value)
    })
}

/// An F32 from a 16-bit element.
pub(crate) fn widen_scalar(b: &mut FunctionBuilder<'_>, dtype: DType, half: Value) -> Value {
    let half = b.ins().uextend(types::I32, half);
    let upper = b.ins().ishl_imm_u(half, 16);
    let bits = match dtype {
        DType::F16 => {
            let shifted = b.ins().sshr_imm_u(upper, 3);
            let moved = b.ins().band_imm_u(shifted, 0x8fff_ffff);
            let exponent = b.ins().band_imm_u(half, 0x7c00);
            let special = b.ins().icmp_imm_s(IntCC::Equal, exponent, 0x7c00);
            let with_exponent = b.ins().bor_imm_u(moved, 0x7f80_0000);
            b.ins().select(special, with_exponent, moved)
        }
        _ => upper,
    };
    let value = cast(b, types::F32, bits);
    correct_bias(b, Width::One, dtype, value)
}

/// The second half of the way from f16.
///
/// The first half put the five bits of the exponent into the low bits of the new field, or all ones for infinities and
/// NaNs. What the field counts from is then too low by 112, and the multiplication corrects that, exactly, and for
/// subnormals as well.
fn correct_bias(b: &mut FunctionBuilder<'_>, width: Width, dtype: DType, value: Value) -> Value {
    if dtype != DType::F16 {
        return value;
    }
    let scale = float(b, width, 2f32.powi(112));
    b.ins().fmul(value, scale)
}

/// Four signed bytes in a word as four I32 lanes.
pub(crate) fn widen_bytes(b: &mut FunctionBuilder<'_>, word: Value) -> Value {
    let bytes = b.ins().scalar_to_vector(types::I32X4, word);
    let bytes = cast(b, types::I8X16, bytes);
    let halves = b.ins().swiden_low(bytes);
    b.ins().swiden_low(halves)
}

/// The lowest bytes of four I32 lanes as a word.
pub(crate) fn narrow_bytes(b: &mut FunctionBuilder<'_>, value: Value) -> Value {
    const LOWEST: [u8; 16] = [0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12];
    let bytes = shuffle(b, value, value, LOWEST);
    let words = cast(b, types::I32X4, bytes);
    b.ins().extractlane(words, 0)
}

/// Twice four I32 lanes of at most 0xffff as eight 16-bit elements.
pub(crate) fn pack_halves(b: &mut FunctionBuilder<'_>, low: Value, high: Value) -> Value {
    b.ins().unarrow(low, high)
}

/// 16-bit elements in the lower halves of I32 lanes, from F32 lanes: rounded to nearest even, NaNs stay NaNs.
pub(crate) fn narrow(b: &mut FunctionBuilder<'_>, width: Width, dtype: DType, value: Value) -> Value {
    let bits = cast(b, width.int(), value);
    let nan = b.ins().fcmp(FloatCC::NotEqual, value, value);
    if dtype == DType::BF16 {
        let rounded = round_off(b, width, bits, 16);
        let upper = b.ins().ushr_imm_u(bits, 16);
        let quiet = int(b, width, 0x40);
        let quieted = b.ins().bor(upper, quiet);
        return choose(b, width, nan, quieted, rounded);
    }
    let sign_bit = int(b, width, 0x8000_0000);
    let sign = b.ins().band(bits, sign_bit);
    let magnitude = b.ins().bxor(bits, sign);

    // Normal results: the exponent's bias changes by 112; a carry from rounding may reach infinity.
    let bias = int(b, width, 0u32.wrapping_sub(112 << 23));
    let rebiased = b.ins().iadd(magnitude, bias);
    let normal = round_off(b, width, rebiased, 13);
    // Subnormal results are multiples of 2^-24, and those are the units in the last place next to 0.5.
    let half = float(b, width, 0.5);
    let float_magnitude = cast(b, width.float(), magnitude);
    let aligned = b.ins().fadd(float_magnitude, half);
    let aligned = cast(b, width.int(), aligned);
    let half_bits = int(b, width, 0.5f32.to_bits());
    let subnormal = b.ins().isub(aligned, half_bits);
    let smallest_normal = int(b, width, 0x3880_0000);
    let is_subnormal = b.ins().icmp(IntCC::SignedLessThan, magnitude, smallest_normal);
    let finite = choose(b, width, is_subnormal, subnormal, normal);

    let limit = int(b, width, 65536f32.to_bits());
    let overflows = b.ins().icmp(IntCC::SignedGreaterThanOrEqual, magnitude, limit);
    let infinity = int(b, width, 0x7c00);
    let number = choose(b, width, overflows, infinity, finite);
    let quiet = int(b, width, 0x7e00);
    let unsigned = choose(b, width, nan, quiet, number);
    let sign = b.ins().ushr_imm_u(sign, 16);
    b.ins().bor(unsigned, sign)
}

/// `bits >> count`, rounded to nearest even.
fn round_off(b: &mut FunctionBuilder<'_>, width: Width, bits: Value, count: u8) -> Value {
    let shifted = b.ins().ushr_imm_u(bits, i64::from(count));
    let one = int(b, width, 1);
    let odd = b.ins().band(shifted, one);
    let below_half = int(b, width, (1 << (count - 1)) - 1);
    let bits = b.ins().iadd(bits, below_half);
    let bits = b.ins().iadd(bits, odd);
    b.ins().ushr_imm_u(bits, i64::from(count))
}
