//! The operations that work lane by lane, as tables: a row is all that there is to say of one.
//!
//! A row has the name, the word of the text form, the types that it takes and gives, and what the evaluator computes.
//! Printer, parser, type rules, verifier and evaluator read it; each backend spells it, and does not compile without.

use super::Scalar;

/// A reference function of one lane: F32, I32 and Bool are 32 bits of a word.
#[derive(Clone, Copy)]
pub(crate) enum UnaryFn {
    /// From a word to a word.
    Word(fn(u32) -> u32),
    /// From a word to an Index.
    ToIndex(fn(u32) -> i64),
    /// From an Index to a word.
    FromIndex(fn(i64) -> u32),
}

/// A row for people.
pub(crate) struct Row {
    /// The word of the text form.
    pub(crate) word: &'static str,
    /// What it takes and gives.
    pub(crate) types: &'static str,
    /// What it computes.
    pub(crate) doc: &'static str,
}

/// The name of a type in a row → the type in Rust, and what is stored of it.
macro_rules! lane {
    (@rust F32) => {
        f32
    };
    (@rust I32) => {
        i32
    };
    (@rust Bool) => {
        i32
    };
    (@rust Index) => {
        i64
    };
    (@from F32 $bits:ident) => {
        f32::from_bits($bits)
    };
    (@from I32 $bits:ident) => {
        $bits as i32
    };
    (@to F32 $value:expr) => {
        ($value).to_bits()
    };
    (@to I32 $value:expr) => {
        $value as u32
    };
}

macro_rules! unary {
    (@function I32 Index $function:expr) => {{
        const F: fn(i32) -> i64 = $function;
        UnaryFn::ToIndex(|bits| F(bits as i32))
    }};
    (@function Index I32 $function:expr) => {{
        const F: fn(i64) -> i32 = $function;
        UnaryFn::FromIndex(|index| F(index) as u32)
    }};
    (@function $from:ident $to:ident $function:expr) => {{
        const F: fn(lane!(@rust $from)) -> lane!(@rust $to) = $function;
        UnaryFn::Word(|bits| lane!(@to $to F(lane!(@from $from bits))))
    }};
    ($($(#[doc = $doc:literal])+ $name:ident $word:literal: $from:ident -> $to:ident = $function:expr;)+) => {
        /// Operations on one operand, lane by lane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Unary {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Unary {
            /// All of them, and their words.
            pub(crate) const WORDS: &[(Unary, &str)] = &[$((Unary::$name, $word)),+];

            /// The rows, for people.
            pub(crate) const ROWS: &[Row] = &[$(Row {
                word: $word,
                types: concat!(stringify!($from), " → ", stringify!($to)),
                doc: concat!($($doc),+),
            }),+];

            /// What it takes and gives.
            pub(crate) const fn types(self) -> (Scalar, Scalar) {
                match self {
                    $(Unary::$name => (Scalar::$from, Scalar::$to),)+
                }
            }

            /// What it computes.
            pub(crate) fn function(self) -> UnaryFn {
                match self {
                    $(Unary::$name => unary!(@function $from $to $function),)+
                }
            }
        }
    };
}

macro_rules! binary {
    (@find F32: F32 = $function:expr $(, $($rest:tt)*)?) => { Some($function) };
    (@find I32: I32 = $function:expr $(, $($rest:tt)*)?) => { Some($function) };
    (@find Index: Index = $function:expr $(, $($rest:tt)*)?) => { Some($function) };
    (@find $wanted:ident: $other:ident = $function:expr, $($rest:tt)+) => { binary!(@find $wanted: $($rest)+) };
    (@find $wanted:ident: $other:ident = $function:expr) => { None };
    ($($(#[doc = $doc:literal])+ $name:ident $word:literal: $($scalar:ident = $function:expr),+;)+) => {
        /// Operations on two operands of one type, lane by lane.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Binary {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Binary {
            /// All of them, and their words.
            pub(crate) const WORDS: &[(Binary, &str)] = &[$((Binary::$name, $word)),+];

            /// The rows, for people.
            pub(crate) const ROWS: &[Row] = &[$(Row {
                word: $word,
                types: stringify!($($scalar),+),
                doc: concat!($($doc),+),
            }),+];

            /// What both operands may be.
            pub(crate) const fn types(self) -> &'static [Scalar] {
                match self {
                    $(Binary::$name => &[$(Scalar::$scalar),+],)+
                }
            }

            /// What it computes of two F32.
            pub(crate) fn of_floats(self) -> Option<fn(f32, f32) -> f32> {
                match self {
                    $(Binary::$name => binary!(@find F32: $($scalar = $function),+),)+
                }
            }

            /// What it computes of two I32, or two Bool that are 0 or 1.
            pub(crate) fn of_words(self) -> Option<fn(i32, i32) -> i32> {
                match self {
                    $(Binary::$name => binary!(@find I32: $($scalar = $function),+),)+
                }
            }

            /// What it computes of two Index; nothing if the division is not allowed.
            pub(crate) fn of_indices(self) -> Option<fn(i64, i64) -> Option<i64>> {
                match self {
                    $(Binary::$name => binary!(@find Index: $($scalar = $function),+),)+
                }
            }
        }
    };
}

macro_rules! compare {
    ($($(#[doc = $doc:literal])+ $name:ident $word:literal = $operator:tt;)+) => {
        /// Ordered comparisons (F32, I32, Index), giving Bool lanes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Compare {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Compare {
            /// All of them, and their words.
            pub(crate) const WORDS: &[(Compare, &str)] = &[$((Compare::$name, $word)),+];

            /// The rows, for people.
            pub(crate) const ROWS: &[Row] = &[$(Row {
                word: $word,
                types: "F32, I32, Index → Bool",
                doc: concat!($($doc),+),
            }),+];

            /// What both operands may be.
            pub(crate) const TYPES: &[Scalar] = &[Scalar::F32, Scalar::I32, Scalar::Index];

            /// What it computes, as a word.
            pub(crate) fn of<T: PartialOrd>(self, x: T, y: T) -> u32 {
                u32::from(match self {
                    $(Compare::$name => x $operator y,)+
                })
            }
        }
    };
}

unary! {
    /// `-x`
    Neg "neg": F32 -> F32 = |x| -x;
    /// `|x|`
    Abs "abs": F32 -> F32 = |x| x.abs();
    /// `√x`, correctly rounded.
    Sqrt "sqrt": F32 -> F32 = |x| x.sqrt();
    /// To the nearest integer, ties to even.
    Round "round": F32 -> F32 = |x| x.round_ties_even();
    /// The target's native `2^x`, approximate. Only where the target has it (GPUs).
    Exp2 "exp2": F32 -> F32 = |x| x.exp2();
    /// An integral value within the range of i32.
    ToI32 "to_i32": F32 -> I32 = |x| x as i32;
    /// Rounded to nearest even.
    ToF32 "to_f32": I32 -> F32 = |x| x as f32;
    /// Sign-extended.
    ToIndex "to_index": I32 -> Index = |x| x as i64;
    /// Truncated.
    IndexToI32 "index_to_i32": Index -> I32 = |x| x as i32;
    /// The bits of a float.
    BitsOf "bits_of": F32 -> I32 = |x| x.to_bits() as i32;
    /// The float with these bits.
    FromBits "from_bits": I32 -> F32 = |x| f32::from_bits(x as u32);
}

binary! {
    /// Sum; integers wrap.
    Add "add": F32 = |x, y| x + y, I32 = |x, y| x.wrapping_add(y), Index = |x, y| Some(x.wrapping_add(y));
    /// Difference; integers wrap.
    Sub "sub": F32 = |x, y| x - y, I32 = |x, y| x.wrapping_sub(y), Index = |x, y| Some(x.wrapping_sub(y));
    /// Product; integers wrap.
    Mul "mul": F32 = |x, y| x * y, I32 = |x, y| x.wrapping_mul(y), Index = |x, y| Some(x.wrapping_mul(y));
    /// Quotient: correctly rounded on F32; truncating on Index, whose divisor must be a positive constant.
    Div "div": F32 = |x, y| x / y, Index = |x, y| (y > 0).then(|| x / y);
    /// Remainder; the divisor must be a positive constant, the dividend not negative.
    Rem "rem": Index = |x, y| (y > 0 && x >= 0).then(|| x % y);
    /// The smaller. On F32 a NaN in the first operand gives the second: comparisons with NaN fail.
    Min "min": F32 = |x, y| if x < y { x } else { y }, I32 = |x, y| x.min(y), Index = |x, y| Some(x.min(y));
    /// The larger. On F32 a NaN in the first operand gives the second: comparisons with NaN fail.
    Max "max": F32 = |x, y| if y < x { x } else { y }, I32 = |x, y| x.max(y), Index = |x, y| Some(x.max(y));
    /// Bitwise and.
    And "and": I32 = |x, y| x & y, Bool = |x, y| x & y;
    /// Bitwise or.
    Or "or": I32 = |x, y| x | y, Bool = |x, y| x | y;
    /// Bitwise exclusive or.
    Xor "xor": I32 = |x, y| x ^ y;
    /// Shift left; the count is taken from the second operand, modulo 32.
    Shl "shl": I32 = |x, y| x.wrapping_shl(y as u32);
    /// Arithmetic shift right; the count is taken from the second operand, modulo 32.
    Shr "shr": I32 = |x, y| x.wrapping_shr(y as u32);
}

compare! {
    /// `a == b`
    Eq "eq" = ==;
    /// `a != b` (true if one is NaN)
    Ne "ne" = !=;
    /// `a < b`
    Lt "lt" = <;
    /// `a <= b`
    Le "le" = <=;
}
