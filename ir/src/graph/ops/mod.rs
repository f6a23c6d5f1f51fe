//! The op table: one row for each op, one file for what it means.
//!
//! A row is `kind file::Type { attributes } (operands) -> (results) [facts]`, `x[n]` standing for any number of them. It
//! yields the struct, its variant of [`Op`], its mnemonic (the name of the file), text form and entry in the op
//! reference. The file says what the op computes:
//!
//! | kind | the file has | used by |
//! |---|---|---|
//! | `elementwise` | a function of single elements, for numbers and for Kernel IR: `Elementwise` | evaluator, constant folding, the schedules of all targets |
//! | `core` | types and evaluation: `Infer`, `Eval` | evaluator; its schedules are in `passes` |
//! | `fused` | types and decomposition into core ops: `Infer`, `Decompose` | evaluator, fusions; without a schedule it is decomposed before planning |
//!
//! A fact is `view` (the result is the operand under another shape), `matrix x` (the operand `x` is a matrix, which keeps the
//! format it is stored in), `matrices` (the op says itself which of its operands are matrices) or `in_place x -> y` (the
//! result `y` takes the memory of the operand `x`). Element-wise ops have none.
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

use super::eval::{Data, Env, EvalError, Real, elementwise};
use super::text::ParseError;
use crate::kernel::Reg;
use crate::kernel::builder::Builder;
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

/// What an op computes that has each element of its result from the same position of its operands. It takes any float
/// formats, and its result is f32.
pub(crate) trait Elementwise {
    /// Whether two operands may be exchanged.
    const COMMUTES: bool;

    /// The function of single elements, one of each operand.
    fn apply<F: Real>(x: &[F]) -> F;

    /// The same of registers of any number of lanes.
    fn emit(b: &mut Builder, x: &[Reg]) -> Reg;
}

/// Emits an element-wise op in Kernel IR: operands in registers of any number of lanes, the result in one of as many.
pub type Emit = fn(&mut Builder, &[Reg]) -> Reg;

/// Something that planning and schedules need to know of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The result is the operand under another shape.
    View,
    /// The operand of this name is a matrix, which keeps the format it is stored in.
    Matrix(&'static str),
    /// The op says itself which operands are matrices.
    Matrices,
    /// The result of the second name takes the memory of the operand of the first.
    InPlace(&'static str, &'static str),
}

/// Whether an op has a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Evaluated element by element.
    Elementwise,
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
    /// What planning and schedules need to know.
    pub facts: &'static [Fact],
    /// What it computes, in Markdown.
    pub doc: &'static str,
}

impl OpInfo {
    /// Which of `len` operands or results has a name of this list.
    fn position(names: &[&str], name: &str, len: usize) -> Option<usize> {
        let at = names.iter().position(|n| *n == name)?;
        // Any number of others may come before it, but then none comes behind.
        let is_after_many = names[..at].iter().any(|n| n.ends_with(']'));
        if is_after_many {
            (len + at).checked_sub(names.len())
        } else {
            Some(at)
        }
    }
}

macro_rules! ops {
    (@fact view) => { Fact::View };
    (@fact matrices) => { Fact::Matrices };
    (@fact matrix $operand:ident) => { Fact::Matrix(stringify!($operand)) };
    (@fact in_place $operand:ident -> $result:ident) => { Fact::InPlace(stringify!($operand), stringify!($result)) };
    (@kind elementwise) => { Kind::Elementwise };
    (@kind core) => { Kind::Core };
    (@kind fused) => { Kind::Fused };
    (@mnemonic const_) => { "const" };
    (@mnemonic $file:ident) => { stringify!($file) };
    (@eval elementwise $op:ident $operands:ident $env:ident) => { Ok(vec![elementwise::eval($op, $operands)]) };
    (@eval core $op:ident $operands:ident $env:ident) => { Eval::eval($op, $operands, $env) };
    (@eval fused $op:ident $operands:ident $env:ident) => {
        super::eval::eval_decomposed(|graph, values| $op.decompose(graph, values), $operands, $env)
    };
    (@infer elementwise $op:ident $operands:ident $n:expr) => { { let _ = $op; shapes::elementwise($operands, $n) } };
    (@infer $kind:ident $op:ident $operands:ident $n:expr) => { $op.infer($operands) };
    (@emit elementwise $name:ident) => { Some(<$name as Elementwise>::emit) };
    (@emit $kind:ident $name:ident) => { None };
    (@apply elementwise $name:ident $x:ident) => { Some(<$name as Elementwise>::apply($x)) };
    (@apply $kind:ident $name:ident $x:ident) => { None };
    (@commutes elementwise $name:ident) => { <$name as Elementwise>::COMMUTES };
    (@commutes $kind:ident $name:ident) => { false };
    (@decompose elementwise $op:ident $graph:ident $operands:ident) => { None };
    (@decompose core $op:ident $graph:ident $operands:ident) => { None };
    (@decompose fused $op:ident $graph:ident $operands:ident) => { Some($op.decompose($graph, $operands)) };
    (@inherent elementwise $name:ident) => {};
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
        } ( $($operand:ident $([$more:tt])?),* ) -> ( $($result:ident $([$more_results:tt])?),* ) [ $( $fact:ident $($of:ident $(-> $to:ident)?)? ),* ];
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
                facts: &[ $( ops!(@fact $fact $($of $(-> $to)?)?) ),* ],
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

            /// What an element-wise op computes, in Kernel IR; `None` for other ops.
            pub fn emit(&self) -> Option<Emit> {
                match self {
                    $( Op::$name(_) => ops!(@emit $kind $name), )*
                }
            }

            /// What an element-wise op makes of one number of each operand; `None` for other ops.
            pub fn apply(&self, _x: &[f64]) -> Option<f64> {
                match self {
                    $( Op::$name(_) => ops!(@apply $kind $name _x), )*
                }
            }

            /// Whether its two operands may be exchanged.
            pub fn commutes(&self) -> bool {
                match self {
                    $( Op::$name(_) => ops!(@commutes $kind $name), )*
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
                    $( Op::$name(op) => ops!(@infer $kind op operands [$(stringify!($operand)),*].len()), )*
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
    } () -> (x) [];

    /// A weight of the model, by its official tensor name.
    core param::Param {
        /// The tensor.
        name: String,
        /// Its type: the number format is the stored one.
        ty: TensorType,
    } () -> (w) [];

    /// A number, as a scalar.
    core const_::Const {
        /// A finite number.
        value: f64,
    } () -> (c) [];

    /// Rows of a table, by token: `table[V,D]`, `tokens[..]` → `y[..,D]`. A token that is not in the table is an error.
    core embed::Embed {} (table, tokens) -> (y) [matrix table];

    /// `y = W x` for each row: `x[..,I]`, `w[O,I]` → `y[..,O]`.
    core linear::Linear {} (x, w) -> (y) [matrix w];

    /// A matrix of its own for each row: `x[..,I]`, `m[..,I,J]` → `y[..,J]`, `y_j = Σ_i x_i m_ij`.
    core contract::Contract {} (x, m) -> (y) [matrix m];

    /// `w[A,B]` → `y[B,A]`, in the number format of `w`.
    core transpose::Transpose {} (w) -> (y) [];

    /// For each operand its elements as the nearest ones of a quantised format, group by group of consecutive elements of a row.
    core quantize::Quantize {
        /// `int8` or `int4` for weights, `dynamic8` for activations.
        format: Format,
        /// Whether groups run down the columns of a matrix instead.
        columns: bool,
    } (x[n]) -> (y[n]) [];

    /// The nearest bf16, ties to even, element by element: what activations are for matrix units.
    core to_bf16::ToBf16 {} (x) -> (y) [];

    /// `x + y`, element by element.
    elementwise add::Add {} (x, y) -> (z) [];

    /// `x - y`, element by element.
    elementwise sub::Sub {} (x, y) -> (z) [];

    /// `x y`, element by element.
    elementwise mul::Mul {} (x, y) -> (z) [];

    /// `-x`, element by element.
    elementwise neg::Neg {} (x) -> (y) [];

    /// `e^x`, element by element.
    elementwise exp::Exp {} (x) -> (y) [];

    /// The hyperbolic tangent, element by element.
    elementwise tanh::Tanh {} (x) -> (y) [];

    /// `1 / (1 + e^-x)`, element by element.
    elementwise sigmoid::Sigmoid {} (x) -> (y) [];

    /// `max(x, 0)`, element by element.
    elementwise relu::Relu {} (x) -> (y) [];

    /// `(x - mean) / √(variance + eps) * weight + bias` for each row, with the biased variance. The shape of `weight` and
    /// `bias` is that of the last axes of `x`: `[N]`, or `[H,N]` for a group norm of heads `x[..,H,N]`.
    core layer_norm::LayerNorm {
        /// Added to the variance.
        eps: f64,
    } (x, weight, bias) -> (y) [];

    /// `x / max(‖x‖₂, eps)` for each row.
    core l2_normalize::L2Normalize {
        /// The least divisor.
        eps: f64,
    } (x) -> (y) [];

    /// The sum of each row: `x[..,N]` → `y[..,1]`.
    core sum::Sum {} (x) -> (y) [];

    /// The same elements in row-major order under another shape. Symbolic lengths stay.
    core reshape::Reshape {
        /// The new shape.
        shape: Vec<Dim>,
    } (x) -> (y) [view];

    /// The token before each token: `x[B,T,C]`, `prev[B,C]` → `shifted[B,T,C]`, `next[B,C]`; `shifted` is `prev` at the
    /// first token and `x` of the token before at the others, `next` is `x` of the last token.
    core token_shift::TokenShift {} (x, prev) -> (shifted, next) [in_place prev -> next];

    /// The WKV-7 recurrence, token after token for each head: `S' = S diag(w) + (S a) bᵀ + v kᵀ`, `y = S' r`;
    /// `state[B,H,N,N]`, the others `[B,T,H,N]`. The state is indexed by value, then key. `w` is the decay, between 0 and
    /// 1.
    core wkv7::Wkv7 {} (state, r, w, k, v, a, b) -> (next, y) [in_place state -> next];

    /// The last token: `x[B,T,..]` → `y[B,1,..]`.
    core last::Last {} (x) -> (y) [];

    /// Interpolations between each token and the one before: `y_i = x + (shifted - x) * mix_i`, where `shifted, next =
    /// token_shift x, prev`; `x[B,T,C]`, `prev[B,C]`, each `mix[C]`.
    fused shift_mix::ShiftMix {} (x, prev, mix[n]) -> (y[n], next) [in_place prev -> next];

    /// `shift_mix` of `layer_norm x, weight, bias`.
    fused norm_shift_mix::NormShiftMix {
        /// Added to the variance.
        eps: f64,
    } (x, weight, bias, prev, mix[n]) -> (y[n], next) [in_place prev -> next];

    /// Matrix products with what rides along: `y = activation(W x + bias) * scale + residual` for each member. Operands
    /// are member after member: `x[..,I]`, `w[O,I]` and, if the member has them, `bias[O]`, `scale[..,O]`,
    /// `residual[..,O]`.
    fused linear_group::LinearGroup {
        /// For each member the parts it has, joined by `+`: `skip_zeros` if many of `x` are zero; `bias`; one of `relu`,
        /// `relu2`, `tanh`, `sigmoid`; `scale`; `residual`. `plain` has none.
        members: Vec<Member>,
    } (operand[n]) -> (y[n]) [matrices];

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
    } (state, r, w, k, v, a, g, k_k, k_a, r_k, ln_weight, ln_bias, value_residual[n]) -> (next, y) [in_place state -> next];
}

impl Op {
    /// Whether the result is the operand under another shape.
    pub fn is_view(&self) -> bool {
        self.info().facts.contains(&Fact::View)
    }

    /// Whether the operand of this number is a matrix, which keeps the format it is stored in.
    pub fn reads_matrix(&self, operand: usize) -> bool {
        let info = self.info();
        info.facts.iter().any(|fact| match fact {
            Fact::Matrix(name) => info.operands.get(operand) == Some(name),
            Fact::Matrices => match self {
                Op::LinearGroup(group) => group.weight_operands().any(|w| w == operand),
                _ => unreachable!("`{}` does not say which operands are matrices", self.mnemonic()),
            },
            Fact::View | Fact::InPlace(..) => false,
        })
    }

    /// The operand whose memory a result takes, and the result, of so many.
    pub fn in_place(&self, operands: usize, results: usize) -> Option<(usize, usize)> {
        let info = self.info();
        info.facts.iter().find_map(|fact| match fact {
            Fact::InPlace(operand, result) => Some((
                OpInfo::position(info.operands, operand, operands)?,
                OpInfo::position(info.results, result, results)?,
            )),
            Fact::View | Fact::Matrix(_) | Fact::Matrices => None,
        })
    }
}
