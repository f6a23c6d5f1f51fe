//! A model as a source.

use super::{Entry, Source, WriteError};
use crate::model::{Config, Model};

/// Vectors that official files have as `[1, 1, n]`.
const PADDED: [&str; 12] = [
    "x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a", "s0",
];

impl Source for Model {
    fn config(&self) -> Config {
        Model::config(self).clone()
    }

    fn entries(&self) -> Vec<Entry> {
        self.stored()
            .map(|(tensor, shape)| {
                let name = tensor.name();
                let part = name.rsplit_once('.').map_or(name, |(_, part)| part);
                let padding = if PADDED.contains(&part) {
                    vec![1, 1]
                } else {
                    vec![]
                };
                Entry {
                    name: name.into(),
                    shape: [&padding, shape].concat(),
                    dtype: tensor.dtype(),
                }
            })
            .collect()
    }

    fn read(
        &self,
        index: usize,
        each: &mut dyn FnMut(&[f32]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.stored()
            .nth(index)
            .map_or(Ok(()), |(tensor, _)| tensor.each_chunk(each))
    }
}
