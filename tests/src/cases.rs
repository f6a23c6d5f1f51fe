//! What every suite runs on: each backend that is built in, fused and unfused.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rwkvc::backends;
pub use rwkvc::compile::PROGRAMS;
use rwkvc::compile::{Compiled, Options, compile, plan_model};
use rwkvc::load;
use rwkvc::weights::weights;
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::{Backend, Target, Tuning};
use rwkvc_frontend::model::Model;
use rwkvc_ir::Verified;
use rwkvc_ir::kernel::Kernel;
use rwkvc_passes::pipeline::Selection;
use rwkvc_passes::plan::Plan;
use rwkvc_runtime::ArtifactWriter;

use crate::interpret::Machine;

/// A way to compile a model.
#[derive(Clone)]
pub struct Case {
    /// Code generator.
    pub backend: &'static dyn Backend,
    /// `fused` or `unfused`.
    pub variant: &'static str,
    /// The passes of the variant.
    pub passes: Selection,
    /// What schedules choose, if not the default.
    pub tuning: Option<Tuning>,
}

/// Every backend, fused and unfused.
pub fn cases() -> Vec<Case> {
    backends::all()
        .into_iter()
        .flat_map(|backend| [Case::fused(backend), Case::unfused(backend)])
        .collect()
}

/// What runs kernels of GPUs on this machine, if LLVM is built in.
///
/// # Panics
/// If the kernels do not compile.
#[cfg_attr(
    not(feature = "llvm"),
    expect(unused_variables, reason = "only LLVM makes code for GPUs")
)]
pub fn fibers(kernels: &[Verified<Kernel>], target: &Target) -> Option<Box<dyn Machine>> {
    #[cfg(feature = "llvm")]
    {
        let fibers = crate::fibers::Fibers::compile(kernels, target);
        Some(Box::new(fibers.unwrap_or_else(|error| panic!("{error}"))))
    }
    #[cfg(not(feature = "llvm"))]
    None
}

/// Options that compile every program for GPUs.
pub fn on_gpus<T>(target: &Target, passes: &Selection, f: impl FnOnce(&mut Options<'_>) -> T) -> T {
    f(&mut Options {
        backend: backends::all()[0],
        target: target.clone(),
        passes: passes.clone(),
        tuning: None,
        fuel: None,
        programs: PROGRAMS.to_vec(),
        probes: false,
        after_pass: &mut |_, _| {},
    })
}

/// The plan of every program of a model for GPUs.
///
/// # Panics
/// If it cannot be planned.
pub fn planned_for_gpus(model: &Model, target: &Target, passes: &Selection) -> Plan {
    on_gpus(target, passes, |options| plan_model(model, options)).unwrap_or_else(|e| panic!("{e:#}"))
}

impl Case {
    /// All passes.
    pub fn fused(backend: &'static dyn Backend) -> Self {
        Case {
            backend,
            variant: "fused",
            passes: Selection::all(),
            tuning: None,
        }
    }

    /// The passes that do not fuse.
    pub fn unfused(backend: &'static dyn Backend) -> Self {
        Case {
            backend,
            variant: "unfused",
            passes: Selection::unfused(),
            tuning: None,
        }
    }

    /// Compiles a model for this machine and loads the code.
    ///
    /// # Panics
    /// If it does not compile.
    pub fn load(&self, model: &Arc<Model>, programs: &[ProgramKind]) -> rwkvc_runtime::Model {
        self.with_options(programs, |options| load::load(model, options))
            .unwrap_or_else(|error| panic!("{self}: {error:#}"))
    }

    /// Compiles a model into an artifact.
    ///
    /// # Panics
    /// If it does not compile, or the file cannot be written.
    pub fn write_artifact(&self, model: &Arc<Model>, programs: &[ProgramKind], path: &Path) {
        let compiled = self
            .with_options(programs, |options| compile(model, options))
            .unwrap_or_else(|error| panic!("{self}: {error:#}"));
        write_artifact(model, compiled, path);
    }

    fn with_options<T>(&self, programs: &[ProgramKind], f: impl FnOnce(&mut Options<'_>) -> T) -> T {
        f(&mut Options {
            backend: self.backend,
            target: Target::host(),
            passes: self.passes.clone(),
            tuning: self.tuning,
            fuel: None,
            programs: programs.to_vec(),
            probes: false,
            after_pass: &mut |_, _| {},
        })
    }
}

/// Writes what was compiled as an artifact.
///
/// # Panics
/// If the file cannot be written.
pub fn write_artifact(model: &Arc<Model>, compiled: Compiled, path: &Path) {
    let mut writer =
        ArtifactWriter::create(path, compiled.manifest, compiled.module.bytes()).expect("an artifact");
    for weight in weights(model, &compiled.plan).expect("the weights") {
        writer
            .weight(weight.bytes().expect("a weight"))
            .expect("a place in the artifact");
    }
    writer.finish().expect("an artifact");
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.backend.name(), self.variant)
    }
}
