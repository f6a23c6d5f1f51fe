//! Graph IR.
