//! Bad input of every kind: one clear error that names the thing, exit code 1, no result, no file.

mod arguments;
mod graphs;
mod inputs;
mod models;
mod outputs;
