//! rwkvc-backend-cranelift
