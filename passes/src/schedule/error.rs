//! Why an op has no kernels.

/// Why an op has no kernels on a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There is no schedule, and the op stands for no others that have one.
    #[error("`{0}` can only be computed of weights")]
    None(&'static str),
    /// Quantised values on a GPU.
    #[error("quantised values are planned for CPUs only")]
    Quantised,
    /// A row that the registers of a block cannot hold.
    #[error("its rows have {found} elements, and a GPU holds at most {capacity}")]
    Row {
        /// Elements of the row.
        found: i64,
        /// Elements that a block holds.
        capacity: i64,
    },
    /// Heads that shared memory cannot hold.
    #[error("heads of {0} channels do not fit into the shared memory of a GPU")]
    Head(i64),
}
