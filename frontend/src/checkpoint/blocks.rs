//! Quantised numbers: blocks of small integers that share a scale, in the layouts of ggml.

use half::f16;
use rwkvc_ir::quantized::{Format, Group, INT8_ZERO};
use serde::Serialize;

/// How a block of numbers is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockFormat {
    /// 32 numbers of 4 bits around zero.
    Q4_0,
    /// 32 numbers of 4 bits above a minimum.
    Q4_1,
    /// 32 numbers of 5 bits around zero.
    Q5_0,
    /// 32 numbers of 5 bits above a minimum.
    Q5_1,
    /// 32 numbers of 8 bits around zero.
    Q8_0,
    /// 256 numbers of 4 bits; every 32 have a scale and a minimum of 6 bits.
    Q4K,
    /// 256 numbers of 5 bits; every 32 have a scale and a minimum of 6 bits.
    Q5K,
    /// 256 numbers of 6 bits around zero; every 16 have a scale of 8 bits.
    Q6K,
}

/// The most numbers that a block has.
pub(super) const MOST_VALUES: usize = 256;

/// What is to know about a format beside its decoder.
struct BlockLayout {
    name: &'static str,
    values: usize,
    bytes: usize,
    /// Where the scale is, and the largest factor of it that a number can be.
    scale: (usize, f32),
    /// The same for the minimum.
    minimum: Option<(usize, f32)>,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [BlockFormat; 8] = [
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q8_0,
        BlockFormat::Q4K,
        BlockFormat::Q5K,
        BlockFormat::Q6K,
    ];

    const fn layout(self) -> BlockLayout {
        let (name, values, bytes, scale, minimum) = match self {
            BlockFormat::Q4_0 => ("q4_0", 32, 18, (0, 8.0), None),
            BlockFormat::Q4_1 => ("q4_1", 32, 20, (0, 15.0), Some((2, 1.0))),
            BlockFormat::Q5_0 => ("q5_0", 32, 22, (0, 16.0), None),
            BlockFormat::Q5_1 => ("q5_1", 32, 24, (0, 31.0), Some((2, 1.0))),
            BlockFormat::Q8_0 => ("q8_0", 32, 34, (0, 128.0), None),
            BlockFormat::Q4K => ("q4_k", 256, 144, (0, 63.0 * 15.0), Some((2, 63.0))),
            BlockFormat::Q5K => ("q5_k", 256, 176, (0, 63.0 * 31.0), Some((2, 63.0))),
            BlockFormat::Q6K => ("q6_k", 256, 210, (208, 128.0 * 32.0), None),
        };
        BlockLayout {
            name,
            values,
            bytes,
            scale,
            minimum,
        }
    }

    /// Its name: `q8_0`, `q4_k` …
    pub const fn name(self) -> &'static str {
        self.layout().name
    }

    /// Numbers in a block.
    pub const fn values(self) -> usize {
        self.layout().values
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        self.layout().bytes
    }

    /// The format whose groups have all that blocks of this one have.
    pub const fn groups(self) -> Option<Format> {
        match self {
            BlockFormat::Q8_0 => Some(Format::Int8),
            BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q4K => Some(Format::Int4),
            BlockFormat::Q5_0 | BlockFormat::Q5_1 | BlockFormat::Q5K | BlockFormat::Q6K => None,
        }
    }

    /// Group `i` of a block, of a format that has [`groups`](Self::groups): the codes as they are. Scales and minima of `q4_k` are
    /// rounded to f16, all others are kept.
    pub fn group(self, block: &[u8], i: usize) -> Option<Group> {
        let scale = number(block, self.layout().scale.0);
        let nibble = |packed: &[u8], i: usize| i16::from(packed[i % 16] >> (4 * (i / 16)) & 15);
        let f16 = |x: f32| f16::from_f32(x).to_f32();
        Some(match self {
            BlockFormat::Q8_0 => Group {
                codes: std::array::from_fn(|i| i16::from(block[2 + i] as i8) + i16::from(INT8_ZERO)),
                scale,
                offset: -f32::from(INT8_ZERO) * scale,
            },
            BlockFormat::Q4_0 => Group {
                codes: std::array::from_fn(|i| nibble(&block[2..], i)),
                scale,
                offset: f16(-8.0 * scale),
            },
            BlockFormat::Q4_1 => Group {
                codes: std::array::from_fn(|i| nibble(&block[4..], i)),
                scale,
                offset: number(block, 2),
            },
            BlockFormat::Q4K => {
                let (s, m) = six_bit_pair(&block[4..16], i);
                let packed = &block[16 + i / 2 * 32..];
                Group {
                    codes: std::array::from_fn(|at| i16::from(packed[at] >> (4 * (i % 2)) & 15)),
                    scale: f16(scale * f32::from(s)),
                    offset: f16(-number(block, 2) * f32::from(m)),
                }
            }
            BlockFormat::Q5_0 | BlockFormat::Q5_1 | BlockFormat::Q5K | BlockFormat::Q6K => return None,
        })
    }

    /// No number of the block is larger than this; NaN if some may be NaN.
    pub(super) fn bound(self, block: &[u8]) -> f32 {
        let layout = self.layout();
        let part = |(at, factor): (usize, f32)| number(block, at).abs() * factor;
        part(layout.scale) + layout.minimum.map_or(0.0, part)
    }

    /// The numbers of a block.
    ///
    /// # Panics
    /// If `block` and `values` are not those of one block.
    pub fn decode(self, block: &[u8], values: &mut [f32]) {
        assert_eq!(
            (block.len(), values.len()),
            (self.bytes(), self.values()),
            "the bytes and values of one block of {}",
            self.name()
        );
        let scale = number(block, self.layout().scale.0);
        match self {
            BlockFormat::Q4_0 => small(values, &block[2..], 0, |q| f32::from(q as i8 - 8) * scale),
            BlockFormat::Q5_0 => small(values, &block[6..], high_bits(&block[2..]), |q| {
                f32::from(q as i8 - 16) * scale
            }),
            BlockFormat::Q4_1 => {
                let minimum = number(block, 2);
                small(values, &block[4..], 0, |q| f32::from(q) * scale + minimum);
            }
            BlockFormat::Q5_1 => {
                let minimum = number(block, 2);
                small(values, &block[8..], high_bits(&block[4..]), |q| {
                    f32::from(q) * scale + minimum
                });
            }
            BlockFormat::Q8_0 => {
                for (value, &q) in values.iter_mut().zip(&block[2..]) {
                    *value = f32::from(q as i8) * scale;
                }
            }
            BlockFormat::Q4K => grouped(values, block, None, &block[16..]),
            BlockFormat::Q5K => grouped(values, block, Some(&block[16..48]), &block[48..]),
            BlockFormat::Q6K => six_bits(values, block, scale),
        }
    }
}

/// A number of 16 bits.
fn number(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The fifth bits of 32 numbers.
fn high_bits(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// 32 numbers: the low halves of 16 bytes, then the high halves, each with one more bit of `high`.
fn small(values: &mut [f32], packed: &[u8], high: u32, value: impl Fn(u8) -> f32) {
    for (i, out) in values.iter_mut().enumerate() {
        let low = packed[i % 16] >> (4 * (i / 16)) & 15;
        *out = value(low | ((high >> i & 1) as u8) << 4);
    }
}

/// Eight groups of 32 numbers: the low halves of 32 bytes, then the high halves, and so on; byte `i` of `high` has one
/// more bit of the number `i` of each group.
fn grouped(values: &mut [f32], block: &[u8], high: Option<&[u8]>, packed: &[u8]) {
    let (scale, minimum) = (number(block, 0), number(block, 2));
    for (group, out) in values.chunks_mut(32).enumerate() {
        let (s, m) = six_bit_pair(&block[4..16], group);
        let (scale, minimum) = (scale * f32::from(s), minimum * f32::from(m));
        for (i, out) in out.iter_mut().enumerate() {
            let low = packed[group / 2 * 32 + i] >> (4 * (group % 2)) & 15;
            let bit = high.map_or(0, |h| h[i] >> group & 1);
            *out = scale * f32::from(low | bit << 4) - minimum;
        }
    }
}

/// Scale and minimum of a group. The first four groups have theirs in the low six bits of a byte each; the last four
/// have four bits in a byte together, and the upper two where the first four left room.
fn six_bit_pair(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let both = packed[group + 4];
        let (scale, minimum) = (packed[group - 4] >> 6, packed[group] >> 6);
        (both & 15 | scale << 4, both >> 4 | minimum << 4)
    }
}

/// Two halves of four groups of 32 numbers: 4 bits in 64 bytes of the first part, 2 bits in 32 bytes of the second.
fn six_bits(values: &mut [f32], block: &[u8], scale: f32) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    for (i, out) in values.iter_mut().enumerate() {
        let (half, group, at) = (i / 128, i / 32 % 4, i % 32);
        let four = low[half * 64 + group % 2 * 32 + at] >> (4 * (group / 2)) & 15;
        let two = high[half * 32 + at] >> (2 * group) & 3;
        let q = (four | two << 4) as i8 - 32;
        *out = scale * f32::from(scales[i / 16] as i8) * f32::from(q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwkvc_ir::quantized::GROUP;

    /// A block with arbitrary codes and a moderate scale and minimum.
    fn block(format: BlockFormat) -> Vec<u8> {
        let mut block: Vec<u8> = (0..format.bytes()).map(|i| (i * 151 + 43) as u8).collect();
        let minimum = format.layout().minimum.map(|(at, _)| at);
        for at in [format.layout().scale.0].into_iter().chain(minimum) {
            block[at..at + 2].copy_from_slice(&f16::from_f32(0.0123 * (at + 1) as f32).to_le_bytes());
        }
        block
    }

    #[test]
    fn groups_have_the_numbers_of_their_blocks() {
        for format in BlockFormat::ALL {
            let block = block(format);
            let Some(groups) = format.groups() else {
                assert_eq!(format.group(&block, 0), None, "{}", format.name());
                continue;
            };
            let mut values = vec![0.0; format.values()];
            format.decode(&block, &mut values);
            let bound = f64::from(format.bound(&block));
            for (i, expected) in values.chunks(GROUP).enumerate() {
                let group = format.group(&block, i).expect("a group");
                for (at, &expected) in expected.iter().enumerate() {
                    let most = (1 << groups.bits()) - 1;
                    assert!(
                        (0..=most).contains(&group.codes[at]),
                        "{} code {at}",
                        format.name()
                    );
                    // Products of scales have more bits than an f16.
                    let off = (group.value(at) - f64::from(expected)).abs();
                    let rounding = if format == BlockFormat::Q4K {
                        1.0 / 2048.0
                    } else {
                        1e-7
                    };
                    assert!(off <= rounding * bound, "{} {i} {at}: {off}", format.name());
                }
            }
        }
    }
}
