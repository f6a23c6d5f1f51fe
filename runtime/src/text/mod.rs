//! Tokens to text while they arrive: complete characters only, and nothing that a stop string takes back.

mod decoder;
mod stop;
mod stream;

pub use decoder::Decoder;
pub use stop::{EmptyStop, Filtered, StopFilter};
pub use stream::{Piece, Stop, TextStream};
