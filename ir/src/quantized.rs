//! Quantised formats: codes of few bits, with a scale for each group of values.
//!
//! A value of a group is `scale * code + offset`. Groups have [`GROUP`] values, so a matrix of `int8` takes 8.5 bits a
//! weight, one of `int4` 5.
//!
//! **Invariant:** what the evaluators compute with is decoded from the very codes that kernels read.

use std::fmt;
use std::str::FromStr;

use half::f16;

/// Values of a group.
pub const GROUP: usize = 32;

/// A group as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// A code for each value.
    pub codes: [i16; GROUP],
    /// What a code is multiplied with.
    pub scale: f32,
    /// The value of code 0.
    pub offset: f32,
}

impl Group {
    /// The value of a code.
    pub fn value(&self, i: usize) -> f64 {
        f64::from(self.scale) * f64::from(self.codes[i]) + f64::from(self.offset)
    }
}

macro_rules! formats {
    ($($(#[doc = $doc:literal])+ $name:ident $word:literal: bits $bits:literal, offsets $offsets:literal, encode $encode:ident;)+) => {
        /// A quantised format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Format {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Format {
            /// Every format.
            pub const ALL: &[Format] = &[$(Format::$name),+];

            /// The name in text.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Format::$name => $word,)+
                }
            }

            /// Bits of a code.
            pub const fn bits(self) -> usize {
                match self {
                    $(Format::$name => $bits,)+
                }
            }

            /// Whether an offset is stored with each group.
            pub const fn has_offsets(self) -> bool {
                match self {
                    $(Format::$name => $offsets,)+
                }
            }

            /// The group that stands for these values.
            pub fn encode(self, values: &[f32; GROUP]) -> Group {
                match self {
                    $(Format::$name => $encode(values),)+
                }
            }
        }
    };
}

// A row for each format: its name, the bits of a code, whether groups have offsets, and what encodes a group.
formats! {
    /// Weights: codes from 1 to 255, of which 128 is zero; the scale is an f16.
    Int8 "int8": bits 8, offsets false, encode int8;
    /// Weights: codes from 0 to 15; the scale and the offset, the value of code 0, are f16.
    Int4 "int4": bits 4, offsets true, encode int4;
    /// Activations: codes from -127 to 127, the scale is an f32.
    Dynamic8 "dynamic8": bits 8, offsets false, encode dynamic8;
}

/// A text names no quantised format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown quantised format `{found}`, expected {}", Format::ALL.iter().map(|f| f.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownFormat {
    /// The text.
    pub found: String,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let format = Format::ALL.iter().find(|f| f.name() == text);
        format.copied().ok_or_else(|| UnknownFormat {
            found: text.to_owned(),
        })
    }
}

/// The largest magnitude.
fn largest(values: &[f32; GROUP]) -> f32 {
    values.iter().fold(0.0, |most, x| x.abs().max(most))
}

/// Values in steps from zero as the nearest whole numbers within bounds that are whole, ties to even.
fn whole(steps: [f32; GROUP], least: f32, most: f32) -> [f32; GROUP] {
    // A number of this size has no fraction, so the sum is rounded: many at once, where a function would be called for each.
    const WHOLE: f32 = 12_582_912.0;
    steps.map(|x| (x.clamp(least, most) + WHOLE) - WHOLE)
}

/// Whole numbers as codes.
fn codes(steps: [f32; GROUP], zero: i16) -> [i16; GROUP] {
    steps.map(|x| zero + x as i16)
}

/// The nearest f16.
fn rounded(x: f32) -> f32 {
    // An f16 beyond its range would be infinite.
    f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f32()
}

/// The code of zero in `int8`.
pub const INT8_ZERO: u8 = 128;

/// The largest magnitude is so many steps from zero.
fn int8(values: &[f32; GROUP]) -> Group {
    const ZERO: i16 = INT8_ZERO as i16;
    let scale = rounded(largest(values) / 127.0);
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    Group {
        codes: codes(whole(values.map(|x| x * inverse), -127.0, 127.0), ZERO),
        scale,
        offset: -f32::from(ZERO) * scale,
    }
}

/// As kernels compute it.
fn dynamic8(values: &[f32; GROUP]) -> Group {
    let most = largest(values);
    let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
    Group {
        codes: codes(whole(values.map(|x| x * inverse), -127.0, 127.0), 0),
        scale: most / 127.0,
        offset: 0.0,
    }
}

/// How far the first guess of the scale is widened and narrowed: a few outliers may cost less than coarse steps.
const SCALES: [f32; 9] = [0.8, 0.85, 0.9, 0.94, 0.97, 1.0, 1.03, 1.06, 1.1];

/// Sixteen steps between the least and the largest value, and those nearest to each value.
struct Steps {
    scale: f32,
    offset: f32,
    /// Whole numbers.
    steps: [f32; GROUP],
}

/// Of some ways to place sixteen steps between the least and the largest value, the one with the smallest squared error.
fn int4(values: &[f32; GROUP]) -> Group {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut best = Steps::nearest(values, (high - low) / 15.0, low);
    let mut least = best.error(values);
    for factor in SCALES {
        let guess = Steps::nearest(values, (high - low) / 15.0 * factor, low * factor);
        let (scale, offset) = guess.fitted(values);
        let steps = Steps::nearest(values, scale, offset);
        let error = steps.error(values);
        if error < least {
            (least, best) = (error, steps);
        }
    }
    Group {
        codes: codes(best.steps, 0),
        scale: best.scale,
        offset: best.offset,
    }
}

impl Steps {
    /// The nearest steps of `scale` from `offset` on.
    fn nearest(values: &[f32; GROUP], scale: f32, offset: f32) -> Self {
        let (scale, offset) = (rounded(scale), rounded(offset));
        let inverse = if scale != 0.0 { 1.0 / scale } else { 0.0 };
        let steps = whole(values.map(|x| (x - offset) * inverse), 0.0, 15.0);
        Steps { scale, offset, steps }
    }

    /// The scale and offset with the least squared error for these steps.
    fn fitted(&self, values: &[f32; GROUP]) -> (f32, f32) {
        let n = GROUP as f32;
        let [x, q, qq, qx] = self.sums(values, |x, q| [x, q, q * q, q * x]);
        let variance = n * qq - q * q;
        if variance <= 0.0 {
            return (0.0, x / n);
        }
        let scale = (n * qx - q * x) / variance;
        (scale, (x - scale * q) / n)
    }

    fn error(&self, values: &[f32; GROUP]) -> f32 {
        let [error] = self.sums(values, |x, q| {
            let off = self.scale * q + self.offset - x;
            [off * off]
        });
        error
    }

    /// `N` sums over all values and their steps.
    fn sums<const N: usize>(&self, values: &[f32; GROUP], of: impl Fn(f32, f32) -> [f32; N]) -> [f32; N] {
        // So many are added up side by side.
        const SIDE: usize = 8;
        let mut sums = [[0.0; SIDE]; N];
        let pairs = values
            .as_chunks::<SIDE>()
            .0
            .iter()
            .zip(self.steps.as_chunks::<SIDE>().0);
        for (values, steps) in pairs {
            for i in 0..SIDE {
                for (sum, term) in sums.iter_mut().zip(of(values[i], steps[i])) {
                    sum[i] += term;
                }
            }
        }
        sums.map(|sums| sums.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some values between -1 and 1, different for each seed.
    fn values(seed: u32) -> [f32; GROUP] {
        std::array::from_fn(|i| {
            let mixed = (seed * 32 + i as u32 + 1).wrapping_mul(0x9e37_79b9);
            (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    }

    #[test]
    fn errors_are_within_half_a_step() {
        for seed in 0..200 {
            let values = values(seed);
            for (format, step) in [
                (Format::Int8, 1.0 / 127.0),
                (Format::Int4, 2.0 / 15.0),
                (Format::Dynamic8, 1.0 / 127.0),
            ] {
                let group = format.encode(&values);
                let worst = values
                    .iter()
                    .enumerate()
                    .map(|(i, x)| (group.value(i) - f64::from(*x)).abs());
                let worst = worst.fold(0.0, f64::max);
                // The scale of an f16 is rounded, and a fit may trade the largest error for the others.
                let bound = if format == Format::Int4 { step } else { 0.52 * step };
                assert!(worst <= bound, "{format}, seed {seed}: {worst}");
            }
        }
    }

    #[test]
    fn the_fit_is_never_worse_than_the_plain_range() {
        for seed in 0..200 {
            let mut values = values(seed);
            values[7] *= 4.0;
            let low = values.iter().copied().fold(f32::INFINITY, f32::min);
            let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let plain = Steps::nearest(&values, (high - low) / 15.0, low).error(&values);
            let found = int4(&values);
            let off = |i: usize| (found.value(i) - f64::from(values[i])).powi(2);
            assert!((0..GROUP).map(off).sum::<f64>() <= f64::from(plain) * 1.0001);
        }
    }

    #[test]
    fn zeros_and_constants_are_exact() {
        for &format in Format::ALL {
            let zeros = format.encode(&[0.0; GROUP]);
            assert!((0..GROUP).all(|i| zeros.value(i) == 0.0), "{format}");
        }
        let same = Format::Int4.encode(&[0.75; GROUP]);
        assert_eq!(same.value(3), 0.75);
    }

    #[test]
    fn names_are_read() {
        for &format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        assert!("int3".parse::<Format>().is_err());
    }
}
