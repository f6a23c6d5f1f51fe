//! What schedules for CPUs choose by measurement rather than by rule.
//!
//! Every value of every field gives correct kernels on every CPU; which one is fastest depends on the machine and the
//! model. [`Tuning::of`] is what is good everywhere.

use std::fmt;
use std::str::FromStr;

/// Tokens × outputs, or vectors of these, that are computed at once, in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Tokens.
    pub rows: i64,
    /// Outputs, or vectors of these, for each token.
    pub outputs: i64,
}

/// `6x4`: tokens, then outputs.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.outputs)
    }
}

impl FromStr for Tile {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rows, outputs) = text.split_once('x').unwrap_or((text, ""));
        Ok(Tile {
            rows: rows.parse()?,
            outputs: outputs.parse()?,
        })
    }
}

const fn tile(rows: i64, outputs: i64) -> Tile {
    Tile { rows, outputs }
}

/// A field of a [`Tuning`]: its name, what it may be, and how to see what is best.
pub struct Field {
    /// Its name, as in [`Tuning`].
    pub name: &'static str,
    /// Tokens of a call that shows what the field does: 1 is decode, more are prefill.
    pub tokens: usize,
    /// Whether speed rises with its values up to some of them and falls from there on.
    pub is_scale: bool,
    summary: &'static str,
    values: fn() -> Vec<String>,
    get: fn(&Tuning) -> String,
    set: fn(&mut Tuning, &str) -> bool,
}

impl Field {
    /// What it is, in a sentence.
    pub fn summary(&self) -> &'static str {
        self.summary.trim()
    }

    /// All that it may be, as text.
    pub fn values(&self) -> Vec<String> {
        (self.values)()
    }

    /// What it is in a tuning.
    pub fn get(&self, tuning: &Tuning) -> String {
        (self.get)(tuning)
    }

    /// Sets it to one of [`Self::values`].
    ///
    /// # Errors
    /// If it is none of them.
    pub fn set(&self, tuning: &mut Tuning, value: &str) -> Result<(), TuningError> {
        match (self.set)(tuning, value) {
            true => Ok(()),
            false => Err(TuningError::Value {
                field: self.name,
                found: value.to_owned(),
                expected: self.values().join(", "),
            }),
        }
    }
}

/// Why a text is no tuning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TuningError {
    /// There is no such field.
    #[error("unknown field `{found}`, expected {expected}")]
    Field {
        /// The name.
        found: String,
        /// All names.
        expected: String,
    },
    /// A field cannot have this value.
    #[error("`{field}` is {found}, expected {expected}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value.
        found: String,
        /// All values that it may have.
        expected: String,
    },
}

macro_rules! tuning {
    ($($(#[doc = $doc:literal])+ $name:ident: $ty:ty = $values:expr, $shape:ident, tokens $tokens:literal;)+) => {
        /// What schedules choose, of what [`Field::values`] allows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Tuning {
            $($(#[doc = $doc])+ pub $name: $ty,)+
        }

        /// All fields, in the order in which it is best to try them: what matters most comes first.
        pub const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            tokens: $tokens,
            is_scale: tuning!(@ $shape),
            summary: concat!($($doc),+),
            values: || $values.iter().map(<$ty>::to_string).collect(),
            get: |tuning| tuning.$name.to_string(),
            set: |tuning, text| {
                let values: &[$ty] = &$values;
                let known = text.parse().ok().filter(|value| values.contains(value));
                if let Some(value) = known {
                    tuning.$name = value;
                }
                known.is_some()
            },
        },)+];
    };
    (@ scale) => { true };
    (@ choice) => { false };
}

/// Shapes of tiles of tokens × outputs.
const TALL: [Tile; 7] = [
    tile(4, 2),
    tile(6, 2),
    tile(8, 2),
    tile(12, 2),
    tile(8, 3),
    tile(4, 4),
    tile(6, 4),
];

/// Shapes of tiles of tokens × vectors of outputs.
const SQUARE: [Tile; 9] = [
    tile(4, 2),
    tile(6, 2),
    tile(12, 2),
    tile(4, 3),
    tile(8, 3),
    tile(3, 4),
    tile(5, 4),
    tile(6, 4),
    tile(4, 6),
];

tuning! {
    /// Rows of a dense matrix that a decode task reads at once.
    streams: i64 = [1, 2, 4, 8], scale, tokens 1;
    /// How far ahead a decode task asks for lines of each of these rows, in bytes; 0 does not.
    prefetch_bytes: i64 = [0, 256, 512, 1024, 2048], scale, tokens 1;
    /// Independent sums of each of these rows.
    sums: i64 = [1, 2, 4], scale, tokens 1;
    /// Panels, of as many rows as there are lanes, of a quantised matrix that a task computes at once.
    packed_panels: i64 = [1, 2, 4], scale, tokens 1;
    /// How many groups of 32 codes ahead a task asks for lines of these; 0 does not.
    packed_ahead: i64 = [0, 2, 4, 8, 16], scale, tokens 1;
    /// Outputs of a panel of `ffn.value`, about: an input's are so long a stretch of memory.
    panel_outputs: i64 = [128, 256, 512, 1024], scale, tokens 1;
    /// Percent of the inputs of `ffn.value` that are not zero, below which only these are read; 0 always reads all.
    skip_percent: i64 = [0, 20, 40, 60, 80, 100], scale, tokens 1;
    /// The tile of many tokens, with vectors of outputs. A task has as many outputs.
    square: Tile = SQUARE, choice, tokens 128;
    /// Tokens of a tile of a quantised product.
    packed_rows: i64 = [2, 4, 6, 8], scale, tokens 128;
    /// The tile of few tokens, up to 16, whose weights come from memory.
    tall: Tile = TALL, choice, tokens 16;
    /// Most tokens of one call of prefill.
    chunk: i64 = [64, 128, 256], scale, tokens 256;
}

impl Tuning {
    /// What is good everywhere for vectors of so many lanes in so many registers.
    pub const fn of(f32_lanes: u32, vector_registers: u32) -> Self {
        let many = vector_registers >= 32;
        Tuning {
            streams: 4,
            prefetch_bytes: 512,
            sums: if f32_lanes >= 8 || many { 2 } else { 1 },
            packed_panels: if many { 2 } else { 1 },
            packed_ahead: 4,
            panel_outputs: 512,
            skip_percent: 40,
            // What fits the registers together with weights and activations.
            square: if many { tile(6, 4) } else { tile(6, 2) },
            packed_rows: 4,
            tall: if many { tile(8, 2) } else { tile(6, 2) },
            chunk: 256,
        }
    }

    /// Sets the field of a name.
    ///
    /// # Errors
    /// If there is none, or it cannot have this value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), TuningError> {
        let field = FIELDS.iter().find(|f| f.name == name);
        let field = field.ok_or_else(|| TuningError::Field {
            found: name.to_owned(),
            expected: FIELDS.iter().map(|f| f.name).collect::<Vec<_>>().join(", "),
        })?;
        field.set(self, value)
    }

    /// All fields and their values, as text.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        FIELDS.iter().map(|field| (field.name, field.get(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_among_the_values() {
        for (lanes, registers) in [(4, 16), (4, 32), (8, 16), (16, 32)] {
            let tuning = Tuning::of(lanes, registers);
            for field in FIELDS {
                let value = field.get(&tuning);
                assert!(field.values().contains(&value), "{} is {value}", field.name);
            }
        }
    }

    #[test]
    fn every_value_can_be_set_and_read() {
        let mut tuning = Tuning::of(8, 16);
        for field in FIELDS {
            for value in field.values() {
                tuning.set(field.name, &value).expect("a value of the field");
                assert_eq!(field.get(&tuning), value);
                assert!(tuning.fields().any(|f| f == (field.name, value.clone())));
            }
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        let mut tuning = Tuning::of(8, 16);
        let refused = |tuning: &mut Tuning, name, value| tuning.set(name, value).expect_err(name).to_string();
        assert_eq!(
            refused(&mut tuning, "streams", "3"),
            "`streams` is 3, expected 1, 2, 4, 8"
        );
        let error = refused(&mut tuning, "rivers", "4");
        assert!(
            error.starts_with("unknown field `rivers`, expected streams, "),
            "{error}"
        );
        for (name, value) in [
            ("square", ""),
            ("square", "6"),
            ("square", "6x"),
            ("square", "6x4x2"),
            ("square", "100x100"),
            ("streams", "-4"),
            ("streams", "4.0"),
            ("chunk", "99999999999999999999"),
        ] {
            refused(&mut tuning, name, value);
        }
        assert_eq!(tuning, Tuning::of(8, 16));
    }
}
