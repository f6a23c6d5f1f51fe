//! rwkvc-tests
