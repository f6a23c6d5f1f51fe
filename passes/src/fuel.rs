//! How many rewrites passes may still make.

/// How many rewrites are left: with `--fuel N` the first N happen, which bisects a miscompilation.
#[derive(Clone, Debug)]
pub struct Fuel {
    left: u64,
    used: u64,
}

impl Fuel {
    /// Fuel for `n` rewrites; `None` for any number.
    pub fn new(n: Option<u64>) -> Self {
        Fuel {
            left: n.unwrap_or(u64::MAX),
            used: 0,
        }
    }

    /// Asks for one rewrite.
    pub(crate) fn take(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.used += 1;
        true
    }

    /// Rewrites so far.
    pub fn used(&self) -> u64 {
        self.used
    }
}
