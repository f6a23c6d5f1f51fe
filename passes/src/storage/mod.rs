//! How values are arranged in memory: what schedules read, and what the plan reserves and packs.
//!
//! It stands below both, so neither needs the other to say where an element lies.

mod layout;
mod packing;

pub use layout::Layout;
pub use packing::{Packed, Packing, Part};
