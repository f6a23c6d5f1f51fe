//! Conversions of the 16-bit formats against `DType`, over all 16-bit elements and a dense set of f32.

use crate::loaded::{Loaded, host};
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Affine, Extent, Kernel};

/// Copies `len` elements from one format to another, `lanes` at once.
fn convert(from: DType, to: DType, len: i64, lanes: u32) -> Kernel {
    let mut b = Builder::new(format!("{from}_to_{to}_{lanes}"));
    let x = b.param("x", from, Extent::fixed(len), Access::Read);
    let y = b.param("y", to, Extent::fixed(len), Access::Write);
    let lanes_each = i64::from(lanes);
    b.parallel("i", Extent::fixed(len / lanes_each), |b, i| {
        let at = Affine::from(i) * lanes_each;
        let value = b.load("v", x, at.clone(), lanes);
        b.store(y, at, value);
    });
    b.finish()
}

fn run(kernel: &Kernel, input: Vec<u8>) -> Option<Vec<u8>> {
    let target = host()?;
    let code = Loaded::new(std::slice::from_ref(kernel), &target);
    let output = vec![0; kernel.params[1].len.fixed as usize * kernel.params[1].dtype.size()];
    let mut buffers = [input, output];
    code.call(kernel, &mut buffers, (0, kernel.grid.fixed), 1);
    let [_, output] = buffers;
    Some(output)
}

#[test]
fn every_half_is_widened_exactly() {
    for from in [DType::F16, DType::BF16] {
        let input: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for lanes in [1, 2, 4, 8, 16] {
            let kernel = convert(from, DType::F32, 1 << 16, lanes);
            let Some(output) = run(&kernel, input.clone()) else {
                return;
            };
            for i in 0..1 << 16 {
                let (found, expected) = (DType::F32.read(&output, i), from.read(&input, i));
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(same, "{from} {i:#06x} × {lanes}: {found}, expected {expected}");
            }
        }
    }
}

#[test]
fn floats_are_narrowed_to_nearest_even() {
    // A step that reaches all exponents and hits neighbours of ties, and the ties themselves.
    let spread = (0..1u32 << 18).map(|i| i.wrapping_mul(16411));
    let ties = (0..1u32 << 16).flat_map(|h| {
        let half = f32::from(half::f16::from_bits(h as u16));
        let next = f32::from(half::f16::from_bits(h.wrapping_add(1) as u16));
        let middle = half / 2.0 + next / 2.0;
        [
            h << 16 | 0x8000,
            h << 16 | 0x7fff,
            middle.to_bits(),
            middle.to_bits().wrapping_add(1),
        ]
    });
    let bits: Vec<u32> = spread.chain(ties).collect();
    let input: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    for to in [DType::F16, DType::BF16] {
        let mut expected = vec![0; bits.len() * 2];
        for (i, &bits) in bits.iter().enumerate() {
            to.write(&mut expected, i, f64::from(f32::from_bits(bits)));
        }
        for lanes in [1, 2, 4, 8, 16] {
            let kernel = convert(DType::F32, to, bits.len() as i64, lanes);
            let Some(output) = run(&kernel, input.clone()) else {
                return;
            };
            for i in 0..bits.len() {
                let (found, expected) = (to.read(&output, i), to.read(&expected, i));
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                let bits = bits[i];
                assert!(
                    same,
                    "{bits:#010x} to {to} × {lanes}: {found:e}, expected {expected:e}"
                );
            }
        }
    }
}
