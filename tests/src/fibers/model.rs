//! Models on a device of fibers.

use std::sync::Arc;

use rwkvc::backends;
use rwkvc::compile::compile;
use rwkvc::weights::weights;
use rwkvc_backend_api::Target;
use rwkvc_frontend::model::Model;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::gpu::GpuModel;

use super::FiberDriver;
use crate::cases::on_gpus;

/// All programs of a model on a new device; `change` may change its code, which is the LLVM IR that becomes PTX.
///
/// # Errors
/// What the runtime says of a model or a target that it does not take.
///
/// # Panics
/// If the model does not compile.
pub fn on_fibers(
    model: &Arc<Model>,
    target: &Target,
    passes: Selection,
    probes: bool,
    change: impl Fn(String) -> String,
) -> Result<(GpuModel, Arc<FiberDriver>), String> {
    let compiled = on_gpus(target, &passes, |options| {
        options.probes = probes;
        compile(model, options).expect("it compiles")
    });
    let listing = backends::all()[0]
        .emit(&compiled.plan.kernels, target, "llvm")
        .expect("LLVM IR");
    let code = change(String::from_utf8_lossy(&listing).into_owned()).into_bytes();
    let weights = weights(model, &compiled.plan).expect("weights");
    let device = Arc::new(FiberDriver::new(2));
    let model = GpuModel::from_parts(compiled.manifest, &code, weights, device.clone());
    Ok((model.map_err(|e| e.to_string())?, device))
}
