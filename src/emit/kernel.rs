//! The loop-level kernels.

use rwkvc::compile::plan_model;

use super::{ALL, Form, Write};

/// As text.
pub(super) const KERNEL: Form = Form {
    name: "kernel",
    summary: "The loop-level kernels as text",
    devices: ALL,
    is_text: true,
    write: Write::Bytes(|model, options| {
        let plan = plan_model(model, options)?;
        let kernels: Vec<String> = plan.kernels.iter().map(|kernel| kernel.to_string()).collect();
        Ok(kernels.join("\n").into_bytes())
    }),
};
