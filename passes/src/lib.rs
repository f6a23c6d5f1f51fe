//! rwkvc-passes
