//! The number formats of tensors in memory.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;

/// How the elements of a tensor or buffer are stored. Arithmetic is always f32 (f64 in the reference evaluators).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed 32-bit integers: token ids.
    I32,
    /// Signed bytes: codes of quantised values.
    I8,
}

impl DType {
    /// Every format, in the order of the enum.
    pub const ALL: [DType; 5] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::I8];

    /// Whether the elements are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::I8 => 1,
        }
    }

    /// How many elements fill a word of 32 bits.
    pub const fn in_word(self) -> u32 {
        4 / self.size() as u32
    }

    /// The name used in both text forms and in manifests: `f32`, `f16`, `bf16`, `i32`, `i8`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::I8 => "i8",
        }
    }

    /// Reads element `index` of a little-endian buffer as f64, exactly.
    ///
    /// # Panics
    /// If the element lies outside `bytes`.
    pub fn read(self, bytes: &[u8], index: usize) -> f64 {
        let at = index * self.size();
        let two = || u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let four = || [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        match self {
            DType::F32 => f64::from(f32::from_le_bytes(four())),
            DType::I32 => f64::from(i32::from_le_bytes(four())),
            DType::I8 => f64::from(bytes[at] as i8),
            DType::F16 => half::f16::from_bits(two()).to_f64(),
            DType::BF16 => half::bf16::from_bits(two()).to_f64(),
        }
    }

    /// Reads as many elements of a little-endian buffer as `values` has, exactly, except that an i32 beyond 2^24 is
    /// rounded.
    ///
    /// # Panics
    /// If the buffer does not have just that many elements.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(
            bytes.len(),
            values.len() * self.size(),
            "bytes of {} elements of {self}",
            values.len()
        );
        match self {
            DType::F32 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*b);
                }
            }
            DType::I32 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = i32::from_le_bytes(*b) as f32;
                }
            }
            DType::I8 => {
                for (value, b) in values.iter_mut().zip(bytes) {
                    *value = f32::from(*b as i8);
                }
            }
            DType::BF16 => {
                for (value, b) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
                }
            }
            DType::F16 => {
                // In blocks, because the conversion of slices uses the instructions that the machine has.
                let mut block = [half::f16::ZERO; 256];
                for (values, bytes) in values.chunks_mut(256).zip(bytes.chunks(512)) {
                    let block = &mut block[..values.len()];
                    for (h, b) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *h = half::f16::from_le_bytes(*b);
                    }
                    block.convert_to_f32_slice(values);
                }
            }
        }
    }

    /// Writes `value` as element `index` of a little-endian buffer, rounding to f32 and from there to nearest even.
    ///
    /// # Panics
    /// If the element lies outside `bytes`.
    pub fn write(self, bytes: &mut [u8], index: usize, value: f64) {
        let at = index * self.size();
        match self {
            DType::F32 => bytes[at..at + 4].copy_from_slice(&(value as f32).to_le_bytes()),
            DType::I32 => bytes[at..at + 4].copy_from_slice(&(value as i32).to_le_bytes()),
            DType::I8 => bytes[at] = value as i8 as u8,
            // The conversions of `half` from f64 look at 20 bits of the mantissa only and round some f32 wrongly.
            DType::F16 => bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(value as f32).to_le_bytes()),
            DType::BF16 => {
                bytes[at..at + 2].copy_from_slice(&half::bf16::from_f32(value as f32).to_le_bytes())
            }
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        DType::ALL
            .into_iter()
            .find(|d| d.name() == text)
            .ok_or_else(|| format!("unknown number format `{text}`, expected f32, f16, bf16, i32 or i8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_agrees_with_reading() {
        // Every bit pattern of two bytes, those that are not numbers included.
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in DType::ALL {
            let mut values = vec![0.0f32; bytes.len() / dtype.size()];
            dtype.decode(&bytes, &mut values);
            for (i, &value) in values.iter().enumerate() {
                let expected = dtype.read(&bytes, i) as f32;
                assert!(
                    value == expected || (value.is_nan() && expected.is_nan()),
                    "{dtype} {i}"
                );
            }
        }
    }

    #[test]
    fn names_are_read() {
        for dtype in DType::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
        }
        assert!("f8".parse::<DType>().is_err());
    }
}
