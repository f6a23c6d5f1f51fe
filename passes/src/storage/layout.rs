//! How the elements of a weight buffer are arranged.

use std::num::NonZero;
use std::thread;

use super::{Packing, Part};

/// An arrangement of the elements of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As checkpoints have it: row after row.
    RowMajor,
    /// `width` rows side by side: element `[row][column]` lies at `[row / width][column][row % width]`. Kernels that compute
    /// `width` outputs at once read such a matrix from its beginning to its end. Rows that are missing in the last
    /// panel are zero.
    Panels {
        /// Rows of a panel.
        width: usize,
    },
    /// A part of a quantised matrix of some rows and columns.
    Packed {
        /// How it is arranged.
        packing: Packing,
        /// Its rows and columns.
        matrix: [usize; 2],
        /// The part.
        part: Part,
    },
}

/// Columns that are moved together: the lines that they are written to stay in the nearest cache.
const COLUMNS: usize = 32;

impl Layout {
    /// The shape of what has `shape` row by row.
    pub(crate) fn shape(self, shape: Vec<usize>) -> Vec<usize> {
        match (self, shape.as_slice()) {
            (Layout::Panels { width }, &[rows, columns]) => vec![rows.div_ceil(width), columns, width],
            _ => shape,
        }
    }

    /// Arranges the bytes of a matrix that lies row by row, whose `columns` elements of a row have `size` bytes each (2 or 4),
    /// into zeroed memory for the result.
    pub(crate) fn arrange(self, matrix: &[u8], columns: usize, size: usize, into: &mut [u8]) {
        let Layout::Panels { width } = self else {
            return into.copy_from_slice(matrix);
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let (panel, source) = (columns * width * size, columns * width * size);
        if panel == 0 {
            return;
        }
        let each = into.len().div_ceil(panel).div_ceil(threads);
        thread::scope(|scope| {
            for (into, from) in into.chunks_mut(each * panel).zip(matrix.chunks(each * source)) {
                scope.spawn(move || {
                    for (into, from) in into.chunks_mut(panel).zip(from.chunks(source)) {
                        match size {
                            2 => interleave::<2>(from, into, columns, width),
                            _ => interleave::<4>(from, into, columns, width),
                        }
                    }
                });
            }
        });
    }
}

/// Puts rows side by side.
fn interleave<const SIZE: usize>(rows: &[u8], into: &mut [u8], columns: usize, width: usize) {
    let (rows, _) = rows.as_chunks::<SIZE>();
    let (into, _) = into.as_chunks_mut::<SIZE>();
    for first in (0..columns).step_by(COLUMNS) {
        let some = first..(first + COLUMNS).min(columns);
        for (r, row) in rows.chunks_exact(columns).enumerate() {
            for column in some.clone() {
                into[column * width + r] = row[column];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_have_rows_side_by_side() {
        let (rows, columns, width) = (5, 3, 2);
        let matrix: Vec<u8> = (0..rows * columns).flat_map(|i| [i as u8, 100]).collect();
        let layout = Layout::Panels { width };
        assert_eq!(layout.shape(vec![rows, columns]), [3, 3, 2]);
        let mut found = vec![0; 3 * 3 * 2 * 2];
        layout.arrange(&matrix, columns, 2, &mut found);
        let expected = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, 12, 0, 13, 0, 14, 0];
        let found: Vec<u8> = found.chunks(2).map(|x| x[0]).collect();
        assert_eq!(found, expected);
    }
}
