//! rwkvc-frontend
