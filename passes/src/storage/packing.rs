//! How quantised values are stored: in parts, each with elements of one format.

use std::num::NonZero;
use std::thread;

use rwkvc_ir::DType;
use rwkvc_ir::graph::ops::Quantize;
use rwkvc_ir::kernel::Extent;
use rwkvc_ir::quantized::{Format, GROUP, Group, INT8_ZERO};

/// A part of a quantised value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The codes.
    Codes,
    /// The scale of each group.
    Scales,
    /// The offset of each group, of formats that store it.
    Offsets,
    /// Of activations: the sum of the codes of each group.
    Sums,
}

/// The parts of quantised activations, in the order in which they lie.
pub(crate) const ACTIVATIONS: [Part; 3] = [Part::Codes, Part::Scales, Part::Sums];

impl Part {
    /// The format and number of its elements, of this many weights.
    pub(crate) fn of_weights(self, format: Format, weights: i64) -> (DType, i64) {
        match self {
            Part::Codes => (DType::I8, weights * format.bits() as i64 / 8),
            _ => (DType::F16, weights / GROUP as i64),
        }
    }

    /// The format and number of its elements, of this many activations.
    pub(crate) fn of_activations(self, activations: Extent) -> (DType, Extent) {
        let n = GROUP as i64;
        let groups = Extent {
            fixed: activations.fixed / n,
            per_token: activations.per_token / n,
        };
        match self {
            Part::Codes => (DType::I8, activations),
            Part::Scales | Part::Offsets => (DType::F32, groups),
            Part::Sums => (DType::I32, groups),
        }
    }

    /// Where it lies, in bytes from the first part on, and all bytes, for so many tokens.
    pub(crate) fn place(self, activations: Extent, tokens: i64) -> (u64, u64) {
        let mut offset = 0;
        let mut own = 0;
        for part in ACTIVATIONS {
            if part == self {
                own = offset;
            }
            let (dtype, len) = part.of_activations(activations);
            let bytes = len.at(tokens).unsigned_abs() * dtype.size() as u64;
            offset += bytes.next_multiple_of(64);
        }
        (own, offset)
    }

    /// What it is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Part::Codes => "codes",
            Part::Scales => "scales",
            Part::Offsets => "offsets",
            Part::Sums => "sums",
        }
    }
}

/// How a quantised matrix is arranged.
///
/// With groups along rows, `width` rows lie side by side: `[panel][group][word][row of the panel]` of words with the codes of
/// four consecutive inputs, or of `int4` with twice as many, those of the second half of the group in the upper bits; and
/// `[panel][group][row of the panel]` of scales. A kernel that computes `width` outputs in lanes reads it from its beginning to
/// its end.
///
/// With groups down columns, it is `[panel][column][row of the panel]`, of `int8` with codes counted from zero, of `int4` with the
/// codes of the first half of each group in the lower bits of bytes and those of the second in the upper ones; and
/// `[panel][column][group of the panel]` of scales.
///
/// Rows that are missing in the last panel are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    /// The format of the weights.
    pub format: Format,
    /// Whether groups run down columns.
    pub columns: bool,
    /// Rows of a panel.
    pub width: usize,
}

/// The parts of a packed matrix, as bytes.
#[derive(Debug)]
pub struct Packed {
    /// A byte or half a byte a weight.
    pub codes: Vec<u8>,
    /// An f16 a group.
    pub scales: Vec<u8>,
    /// An f16 a group, if the format has offsets.
    pub offsets: Vec<u8>,
}

impl Packed {
    /// The bytes of a part.
    pub fn part(&mut self, part: Part) -> &mut Vec<u8> {
        match part {
            Part::Scales => &mut self.scales,
            Part::Offsets => &mut self.offsets,
            Part::Codes | Part::Sums => &mut self.codes,
        }
    }
}

impl Packing {
    pub(crate) fn of(quantize: &Quantize, width: i64) -> Self {
        Packing {
            format: quantize.format,
            columns: quantize.columns,
            width: width as usize,
        }
    }

    /// The shape of a part of a matrix.
    pub(crate) fn shape(self, [rows, columns]: [usize; 2], part: Part) -> Vec<usize> {
        let panels = rows.div_ceil(self.width);
        let weights = (panels * self.width * columns) as i64;
        let (_, len) = part.of_weights(self.format, weights);
        vec![panels, len as usize / panels]
    }

    /// Quantises a matrix whose elements lie row by row in `bytes`, and arranges its parts.
    pub fn pack(self, matrix: [usize; 2], dtype: DType, bytes: &[u8]) -> Packed {
        let row = matrix[1] * dtype.size();
        let decode = |i: usize, values: &mut [f32]| {
            dtype.decode(&bytes[i * row..(i + 1) * row], values);
        };
        self.arrange(matrix, &decode, &|_, _, values| self.format.encode(values))
    }

    /// Arranges a matrix that is quantised along its rows already: `group(row, i)` gives group `i` of a row.
    pub fn pack_groups(self, matrix: [usize; 2], group: &(dyn Fn(usize, usize) -> Group + Sync)) -> Packed {
        self.arrange(matrix, &|_, _| {}, &|row, i, _| group(row, i))
    }

    /// `decode(row, values)` gives the elements of a row, `encode(row, i, values)` its group `i`.
    fn arrange(
        self,
        [rows, columns]: [usize; 2],
        decode: &(dyn Fn(usize, &mut [f32]) + Sync),
        encode: &(dyn Fn(usize, usize, &[f32; GROUP]) -> Group + Sync),
    ) -> Packed {
        let panels = rows.div_ceil(self.width);
        let weights = self.width * columns;
        let mut packed = Packed {
            codes: vec![0; panels * weights * self.format.bits() / 8],
            scales: vec![0; panels * weights / GROUP * 2],
            offsets: vec![0; panels * weights / GROUP * 2],
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let each = panels.div_ceil(threads).max(1);
        let chunk = |bytes: usize| each * bytes;
        let codes = packed.codes.chunks_mut(chunk(weights * self.format.bits() / 8));
        let scales = packed.scales.chunks_mut(chunk(weights / GROUP * 2));
        let offsets = packed.offsets.chunks_mut(chunk(weights / GROUP * 2));
        thread::scope(|scope| {
            for (i, ((codes, scales), offsets)) in codes.zip(scales).zip(offsets).enumerate() {
                scope.spawn(move || {
                    let mut panel = vec![0.0; weights];
                    let own = scales.len() / (weights / GROUP * 2);
                    for p in 0..own {
                        let first = (i * each + p) * self.width;
                        panel.fill(0.0);
                        let there = first..rows.min(first + self.width);
                        for (row, values) in there.zip(panel.chunks_exact_mut(columns)) {
                            decode(row, values);
                        }
                        let codes = part(codes, own, p);
                        let parts = [codes, part(scales, own, p), part(offsets, own, p)];
                        let encode = |row: usize, i: usize, values: &[f32; GROUP]| match first + row < rows {
                            true => encode(first + row, i, values),
                            false => self.format.encode(&[0.0; GROUP]),
                        };
                        self.panel(&panel, columns, parts, &encode);
                    }
                });
            }
        });
        if !self.format.has_offsets() {
            packed.offsets = vec![];
        }
        packed
    }

    /// Arranges one panel.
    fn panel(
        self,
        panel: &[f32],
        columns: usize,
        [codes, scales, offsets]: [&mut [u8]; 3],
        encode: &dyn Fn(usize, usize, &[f32; GROUP]) -> Group,
    ) {
        let width = self.width;
        // A group starts at a row and a column; `place` says which byte has its code `i`.
        let mut group = |row: usize, column: usize, number: usize, place: &dyn Fn(usize) -> usize| {
            let values: [f32; GROUP] = std::array::from_fn(|i| match self.columns {
                true => panel[(row + i) * columns + column],
                false => panel[row * columns + column + i],
            });
            let group = encode(row, column / GROUP, &values);
            for (i, code) in group.codes.into_iter().enumerate() {
                let code = code as u8;
                match self.format.bits() {
                    8 if self.columns => codes[place(i)] = code.wrapping_sub(INT8_ZERO),
                    4 if i < GROUP / 2 => codes[place(i)] |= code,
                    4 => codes[place(i - GROUP / 2)] |= code << 4,
                    _ => codes[place(i)] = code,
                }
            }
            DType::F16.write(scales, number, f64::from(group.scale));
            DType::F16.write(offsets, number, f64::from(group.offset));
        };
        let bytes = GROUP * self.format.bits() / 8;
        if self.columns {
            let groups = width / GROUP;
            for column in 0..columns {
                for g in 0..groups {
                    let first = (column * groups + g) * bytes;
                    group(g * GROUP, column, column * groups + g, &|i| first + i);
                }
            }
        } else {
            for g in 0..columns / GROUP {
                for row in 0..width {
                    let first = g * bytes * width + 4 * row;
                    group(row, g * GROUP, g * width + row, &|i| {
                        first + i / 4 * 4 * width + i % 4
                    });
                }
            }
        }
    }
}

/// Part `i` of `n` equal ones.
fn part(bytes: &mut [u8], n: usize, i: usize) -> &mut [u8] {
    let each = bytes.len() / n;
    &mut bytes[i * each..(i + 1) * each]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(row: usize, column: usize) -> f32 {
        ((row * 37 + column * 11) % 101) as f32 / 50.0 - 1.0
    }

    fn packed(packing: Packing, rows: usize, columns: usize) -> Packed {
        let bytes: Vec<u8> = (0..rows * columns)
            .flat_map(|i| value(i / columns, i % columns).to_le_bytes())
            .collect();
        packing.pack([rows, columns], DType::F32, &bytes)
    }

    #[test]
    fn rows_lie_side_by_side_in_words() {
        for format in [Format::Int8, Format::Int4] {
            let (rows, columns, width) = (7, 64, 4);
            let packing = Packing {
                format,
                columns: false,
                width,
            };
            let found = packed(packing, rows, columns);
            for row in 0..rows {
                for g in 0..columns / GROUP {
                    let group = format.encode(&std::array::from_fn(|i| value(row, g * GROUP + i)));
                    let (panel, r) = (row / width, row % width);
                    let number = (panel * (columns / GROUP) + g) * width + r;
                    assert_eq!(DType::F16.read(&found.scales, number) as f32, group.scale);
                    for (i, code) in group.codes.into_iter().enumerate() {
                        let (i, shift) = match format {
                            Format::Int4 => (i % 16, i / 16 * 4),
                            _ => (i, 0),
                        };
                        let words = GROUP * format.bits() / 8 / 4;
                        let word = ((panel * (columns / GROUP) + g) * words + i / 4) * width + r;
                        let mask = (1 << format.bits()) - 1;
                        let byte = i16::from(found.codes[4 * word + i % 4]);
                        assert_eq!(byte >> shift & mask, code, "{format} {row} {g} {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn columns_lie_input_after_input() {
        let (rows, columns, width) = (96, 3, 64);
        let packing = Packing {
            format: Format::Int8,
            columns: true,
            width,
        };
        let found = packed(packing, rows, columns);
        assert_eq!(found.codes.len(), 2 * 64 * 3);
        let group = Format::Int8.encode(&std::array::from_fn(|i| value(64 + i, 2)));
        // The second panel, its last column.
        let at = 64 * 3 + 64 * 2;
        assert_eq!(found.codes[at..at + 32], group.codes.map(|c| (c - 128) as u8));
        assert_eq!(DType::F16.read(&found.scales, at / 32) as f32, group.scale);
    }
}
