//! The op table: one row for each op, one file for what it means.
//!
//! A row is `kind file::Type { attributes } (operands) -> (results)`, `x[n]` standing for any number of them. It yields
//! the struct, its variant of [`Op`], its mnemonic (the name of the file), text form and entry in the op reference. The
//! file says which types the op takes and gives (`infer`), and what it computes: a `core` op is evaluated, a `fused` op
//! is decomposed into core ops.
//!
//! Operands of arithmetic may have any float format, and results are f32 unless the op says otherwise. Element by element, shapes broadcast as in
//! NumPy: aligned at the last axis, an axis of 1 is repeated. "Row" means the last axis.

mod attributes;
mod shapes;

mod add;
mod const_;
mod contract;
mod embed;
mod exp;
mod input;
mod l2_normalize;
mod last;
mod layer_norm;
mod linear;
mod linear_group;
mod mul;
mod neg;
mod norm_shift_mix;
mod param;
mod quantize;
mod relu;
mod reshape;
mod shift_mix;
mod sigmoid;
mod sub;
mod sum;
mod tanh;
mod to_bf16;
mod token_shift;
mod transpose;
mod wkv7;
mod wkv7_block;

#[cfg(test)]
mod tests;

use attributes::Attribute;
pub(crate) use attributes::{Attributes, Given};
pub use linear_group::{Activation, Member};

use super::eval::{Data, Env, EvalError, Real};
use super::text::ParseError;
use crate::quantized::Format;

use super::{Dim, Graph, GraphError, TensorType, TypeError, Value};

/// Which types an op takes and gives.
pub(crate) trait Infer {
    /// The types of the results on operands of these types.
    fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError>;
}

/// What a core op computes.
pub(crate) trait Eval: Infer {
    /// The results. The operands have types that `infer` accepts.
    fn eval<'a, F: Real>(
        &self,
        operands: &[Data<'a, F>],
        env: &Env<'a, F>,
    ) -> Result<Vec<Data<'a, F>>, EvalError>;
}

/// What a fused op stands for.
pub(crate) trait Decompose: Infer {
    /// Adds core ops with the meaning of this op. The operands have types that `infer` accepts.
    fn expand(&self, graph: &mut Graph, operands: &[Value]) -> Result<Vec<Value>, GraphError>;
}

/// Whether an op has a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Evaluated as it is.
    Core,
    /// Stands for core ops, into which it decomposes.
    Fused,
}

/// A row of the op table.
#[derive(Clone, Copy, Debug)]
pub struct OpInfo {
    /// Its name in text.
    pub mnemonic: &'static str,
    /// Whether it has a meaning of its own.
    pub kind: Kind,
    /// Names of its attributes and what they are.
    pub attributes: &'static [(&'static str, &'static str)],
    /// Names of its operands; `x[n]` for any number.
    pub operands: &'static [&'static str],
    /// Names of its results; `x[n]` for any number.
    pub results: &'static [&'static str],
    /// What it computes, in Markdown.
    pub doc: &'static str,
}

macro_rules! ops {
    (@kind core) => { Kind::Core };
    (@kind fused) => { Kind::Fused };
    (@mnemonic const_) => { "const" };
    (@mnemonic $file:ident) => { stringify!($file) };
    (@eval core $op:ident $operands:ident $env:ident) => { Eval::eval($op, $operands, $env) };
    (@eval fused $op:ident $operands:ident $env:ident) => {
        super::eval::eval_decomposed(|graph, values| $op.decompose(graph, values), $operands, $env)
    };
    (@decompose core $op:ident $graph:ident $operands:ident) => { None };
    (@decompose fused $op:ident $graph:ident $operands:ident) => { Some($op.decompose($graph, $operands)) };
    (@inherent core $name:ident) => {};
    (@inherent fused $name:ident) => {
        impl $name {
            /// Adds core ops with the meaning of this op to a graph and gives their results, in the order of its own.
            ///
            /// # Errors
            /// If an operand is not a value of the graph, or this op does not fit the operands.
            pub fn decompose(&self, graph: &mut Graph, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
                let types = operands.iter().map(|&v| graph.get(v).cloned()).collect::<Result<Vec<_>, _>>()?;
                let op = Op::from(self.clone()).mnemonic();
                self.infer(&types).map_err(|error| GraphError::Type { op, error })?;
                self.expand(graph, operands)
            }
        }
    };
    ($(
        $(#[doc = $doc:literal])*
        $kind:ident $file:ident::$name:ident {
            $( $(#[doc = $attribute_doc:literal])* $attribute:ident: $ty:ty ),* $(,)?
        } ( $($operand:ident $([$more:tt])?),* ) -> ( $($result:ident $([$more_results:tt])?),* );
    )*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $name {
                $( $(#[doc = $attribute_doc])* pub $attribute: $ty, )*
            }

            impl From<$name> for Op {
                fn from(op: $name) -> Op {
                    Op::$name(op)
                }
            }

            ops!(@inherent $kind $name);
        )*

        /// An op with its attributes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $( $(#[doc = $doc])* $name($name), )*
        }

        /// The op table.
        pub const OPS: &[OpInfo] = &[
            $( OpInfo {
                mnemonic: ops!(@mnemonic $file),
                kind: ops!(@kind $kind),
                attributes: &[ $( (stringify!($attribute), concat!($($attribute_doc),*)) ),* ],
                operands: &[ $( concat!(stringify!($operand) $(, "[", stringify!($more), "]")?) ),* ],
                results: &[ $( concat!(stringify!($result) $(, "[", stringify!($more_results), "]")?) ),* ],
                doc: concat!($($doc, "\n"),*),
            }, )*
        ];

        impl Op {
            /// Its name in text.
            pub fn mnemonic(&self) -> &'static str {
                match self {
                    $( Op::$name(_) => ops!(@mnemonic $file), )*
                }
            }

            /// Whether it has a meaning of its own.
            pub fn kind(&self) -> Kind {
                match self {
                    $( Op::$name(_) => ops!(@kind $kind), )*
                }
            }

            /// Its row in the op table.
            pub fn info(&self) -> &'static OpInfo {
                Op::by_mnemonic(self.mnemonic()).expect("every op has a row")
            }

            /// The row of this mnemonic.
            pub fn by_mnemonic(mnemonic: &str) -> Option<&'static OpInfo> {
                OPS.iter().find(|op| op.mnemonic == mnemonic)
            }

            /// Names and texts of the attributes that the result types do not tell.
            pub(crate) fn attributes(&self) -> Vec<(&'static str, String)> {
                let all: Vec<(&'static str, Option<String>)> = match self {
                    $( Op::$name(_op) => vec![ $( (stringify!($attribute), _op.$attribute.print()) ),* ], )*
                };
                all.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
            }

            /// The op of a row of the table with attributes from text.
            pub(crate) fn parse(mnemonic: &str, _attributes: &mut Attributes<'_>) -> Result<Op, ParseError> {
                Ok(match mnemonic {
                    $( ops!(@mnemonic $file) => {
                        Op::$name($name { $( $attribute: _attributes.take(stringify!($attribute))? ),* })
                    } )*
                    _ => unreachable!("the parser has found the row"),
                })
            }

            /// The types of its results on operands of these types.
            ///
            /// # Errors
            /// If the op does not fit the operands.
            pub fn infer(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
                let results = match self {
                    $( Op::$name(op) => op.infer(operands), )*
                }?;
                match results.iter().find(|ty| !ty.is_valid()) {
                    Some(ty) => Err(TypeError::Unrepresentable(ty.clone())),
                    None => Ok(results),
                }
            }

            /// Adds core ops with the meaning of this one and gives their results; `None` for a core op.
            pub fn decompose(
                &self,
                graph: &mut Graph,
                operands: &[Value],
            ) -> Option<Result<Vec<Value>, GraphError>> {
                match self {
                    $( Op::$name(op) => { let _ = op; ops!(@decompose $kind op graph operands) } )*
                }
            }

            /// Computes its results. The operands have types that `infer` accepts.
            pub(crate) fn eval<'a, F: Real>(
                &self,
                operands: &[Data<'a, F>],
                env: &Env<'a, F>,
            ) -> Result<Vec<Data<'a, F>>, EvalError> {
                match self {
                    $( Op::$name(op) => ops!(@eval $kind op operands env), )*
                }
            }
        }
    };
}

ops! {
    /// What the caller gives at each step: tokens, state. Written in the header of a function.
    core input::Input {
        /// Its name.
        name: String,
        /// Its type.
        ty: TensorType,
    } () -> (x);

    /// A weight of the model, by its official tensor name.
    core param::Param {
        /// The tensor.
        name: String,
        /// Its type: the number format is the stored one.
        ty: TensorType,
    } () -> (w);

    /// A number, as a scalar.
    core const_::Const {
        /// A finite number.
        value: f64,
    } () -> (c);

    /// Rows of a table, by token: `table[V,D]`, `tokens[..]` → `y[..,D]`. A token that is not in the table is an error.
    core embed::Embed {} (table, tokens) -> (y);

    /// `y = W x` for each row: `x[..,I]`, `w[O,I]` → `y[..,O]`.
    core linear::Linear {} (x, w) -> (y);

    /// A matrix of its own for each row: `x[..,I]`, `m[..,I,J]` → `y[..,J]`, `y_j = Σ_i x_i m_ij`.
    core contract::Contract {} (x, m) -> (y);

    /// `w[A,B]` → `y[B,A]`, in the number format of `w`.
    core transpose::Transpose {} (w) -> (y);

    /// For each operand its elements as the nearest ones of a quantised format, group by group of consecutive elements of a row.
    core quantize::Quantize {
        /// `int8` or `int4` for weights, `dynamic8` for activations.
        format: Format,
        /// Whether groups run down the columns of a matrix instead.
        columns: bool,
    } (x[n]) -> (y[n]);

    /// The nearest bf16, ties to even, element by element: what activations are for matrix units.
    core to_bf16::ToBf16 {} (x) -> (y);

    /// `x + y`, element by element.
    core add::Add {} (x, y) -> (z);

    /// `x - y`, element by element.
    core sub::Sub {} (x, y) -> (z);

    /// `x y`, element by element.
    core mul::Mul {} (x, y) -> (z);

    /// `-x`, element by element.
    core neg::Neg {} (x) -> (y);

    /// `e^x`, element by element.
    core exp::Exp {} (x) -> (y);

    /// The hyperbolic tangent, element by element.
    core tanh::Tanh {} (x) -> (y);

    /// `1 / (1 + e^-x)`, element by element.
    core sigmoid::Sigmoid {} (x) -> (y);

    /// `max(x, 0)`, element by element.
    core relu::Relu {} (x) -> (y);

    /// `(x - mean) / √(variance + eps) * weight + bias` for each row, with the biased variance. The shape of `weight` and
    /// `bias` is that of the last axes of `x`: `[N]`, or `[H,N]` for a group norm of heads `x[..,H,N]`.
    core layer_norm::LayerNorm {
        /// Added to the variance.
        eps: f64,
    } (x, weight, bias) -> (y);

    /// `x / max(‖x‖₂, eps)` for each row.
    core l2_normalize::L2Normalize {
        /// The least divisor.
        eps: f64,
    } (x) -> (y);

    /// The sum of each row: `x[..,N]` → `y[..,1]`.
    core sum::Sum {} (x) -> (y);

    /// The same elements in row-major order under another shape. Symbolic lengths stay.
    core reshape::Reshape {
        /// The new shape.
        shape: Vec<Dim>,
    } (x) -> (y);

    /// The token before each token: `x[B,T,C]`, `prev[B,C]` → `shifted[B,T,C]`, `next[B,C]`; `shifted` is `prev` at the
    /// first token and `x` of the token before at the others, `next` is `x` of the last token.
    core token_shift::TokenShift {} (x, prev) -> (shifted, next);

    /// The WKV-7 recurrence, token after token for each head: `S' = S diag(w) + (S a) bᵀ + v kᵀ`, `y = S' r`;
    /// `state[B,H,N,N]`, the others `[B,T,H,N]`. The state is indexed by value, then key. `w` is the decay, between 0 and
    /// 1.
    core wkv7::Wkv7 {} (state, r, w, k, v, a, b) -> (next, y);

    /// The last token: `x[B,T,..]` → `y[B,1,..]`.
    core last::Last {} (x) -> (y);

    /// Interpolations between each token and the one before: `y_i = x + (shifted - x) * mix_i`, where `shifted, next =
    /// token_shift x, prev`; `x[B,T,C]`, `prev[B,C]`, each `mix[C]`.
    fused shift_mix::ShiftMix {} (x, prev, mix[n]) -> (y[n], next);

    /// `shift_mix` of `layer_norm x, weight, bias`.
    fused norm_shift_mix::NormShiftMix {
        /// Added to the variance.
        eps: f64,
    } (x, weight, bias, prev, mix[n]) -> (y[n], next);

    /// Matrix products with what rides along: `y = activation(W x + bias) * scale + residual` for each member. Operands
    /// are member after member: `x[..,I]`, `w[O,I]` and, if the member has them, `bias[O]`, `scale[..,O]`,
    /// `residual[..,O]`.
    fused linear_group::LinearGroup {
        /// For each member the parts it has, joined by `+`: `skip_zeros` if many of `x` are zero; `bias`; one of `relu`,
        /// `relu2`, `tanh`, `sigmoid`; `scale`; `residual`. `plain` has none.
        members: Vec<Member>,
    } (operand[n]) -> (y[n]);

    /// What happens to the heads between the projections and the output matrix: decay `exp(decay_scale σ(w))`, removal
    /// key `kk`, key `k (1 + (a - 1) k_a)`, value residual `v + (v_first - v) v_gate`, `wkv7`, group norm, bonus and gate.
    /// `state[B,H,N,N]`; `r`, `w`, `k`, `v`, `a`, `g`, `v_first`, `v_gate` are `[B,T,C]`, `r_k[H,N]` and the other weights
    /// `[C]`.
    fused wkv7_block::Wkv7Block {
        /// Added to the variance of the group norm.
        eps: f64,
        /// The least divisor of the removal key.
        norm_eps: f64,
        /// The logarithm of the smallest decay.
        decay_scale: f64,
        /// Whether there are `v_first` and `v_gate`, after the other operands.
        value_residual: bool,
    } (state, r, w, k, v, a, g, k_k, k_a, r_k, ln_weight, ln_bias, value_residual[n]) -> (next, y);
}
