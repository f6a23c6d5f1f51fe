//! Acceptance and refusals.
