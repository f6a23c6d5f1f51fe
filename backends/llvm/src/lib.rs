//! rwkvc-backend-llvm
