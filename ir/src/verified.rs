//! Proof by type that a verifier has accepted a value.

use std::ops::Deref;

/// A value that its verifier has accepted. It cannot be changed, only taken out again.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Only verifiers make one.
    pub(crate) fn assume(value: T) -> Self {
        Verified(value)
    }

    /// The value, to be changed and verified again.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
