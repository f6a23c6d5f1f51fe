//! From a [`Target`] to LLVM's target machine.

use std::sync::Once;

use inkwell::OptimizationLevel;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    self, CodeModel, FileType, InitializationConfig, RelocMode, TargetMachine, TargetMachineOptions,
    TargetTriple,
};
use inkwell::values::FunctionValue;
use rwkvc_backend_api::{Arch, LowerError, Target};

use crate::target_error;

/// Without these, LLVM would call a library for fused multiplication and for f16.
const REQUIRED_X86: [&str; 3] = ["avx2", "fma", "f16c"];

const REQUIRED_AARCH64: [&str; 1] = ["neon"];

/// What kernels gain from, in order. The pipeline `default<O3>` gives no faster code and takes several times as long:
/// kernels have no calls, and their vectors and tiles are chosen already.
const PASSES: [&str; 9] = [
    // Mutable registers and small locals become values.
    "sroa",
    "early-cse<memssa>",
    "simplifycfg",
    INSTCOMBINE,
    // What does not change in a loop leaves it.
    "loop-mssa(loop-rotate,licm)",
    "loop(loop-unroll-full)",
    "early-cse<memssa>",
    // Scalar code that tiles leave: the same function of each sum.
    "slp-vectorizer",
    INSTCOMBINE,
];

const INSTCOMBINE: &str = "instcombine<no-verify-fixpoint>";

/// What each function needs so that LLVM gives no more and no less than the target allows.
const ATTRIBUTES: [&str; 3] = ["nounwind", "nofree", "nosync"];

/// A machine that LLVM generates code for.
pub(crate) struct Machine {
    machine: TargetMachine,
    /// Attributes of functions, as keys and values.
    attributes: Vec<(&'static str, String)>,
}

impl Machine {
    /// # Errors
    /// [`LowerError::Target`] if the target lacks an extension that kernels cannot do without, or names an unknown one.
    pub(crate) fn new(target: &Target) -> Result<Self, LowerError> {
        let (triple, base, required): (_, _, &[_]) = match target.arch {
            Arch::X86_64 => ("x86_64-unknown-linux-gnu", "x86-64", &REQUIRED_X86),
            Arch::Aarch64 => ("aarch64-unknown-linux-gnu", "generic", &REQUIRED_AARCH64),
            Arch::Cuda => return Err(target_error("there is no code for GPUs yet".to_owned())),
        };
        if let Some(missing) = required.iter().find(|name| !target.has(name)) {
            return Err(target_error(format!(
                "{} code needs the extension `{missing}`, which the target lacks",
                target.arch
            )));
        }
        let known = target.arch.extensions();
        if let Some(unknown) = target.extensions.iter().find(|e| !known.contains(&e.as_str())) {
            return Err(target_error(format!(
                "unknown extension `{unknown}` of {}",
                target.arch
            )));
        }
        let features: Vec<String> = target.extensions.iter().map(|e| format!("+{e}")).collect();
        let features = features.join(",");
        initialize();
        let triple = TargetTriple::create(triple);
        let llvm_target = targets::Target::from_triple(&triple).map_err(|e| target_error(e.to_string()))?;
        let options = TargetMachineOptions::new()
            .set_cpu(base)
            .set_features(&features)
            .set_level(OptimizationLevel::Aggressive)
            .set_reloc_mode(RelocMode::PIC)
            .set_code_model(CodeModel::Small);
        let machine = llvm_target
            .create_target_machine_from_options(&triple, options)
            .ok_or_else(|| target_error(format!("LLVM knows no machine with {features}")))?;
        let attributes = vec![
            ("target-cpu", base.to_owned()),
            ("target-features", features),
            ("tune-cpu", tuning(target)),
            // Otherwise loops over memory become calls of memset and memcpy.
            ("no-builtins", String::new()),
        ];
        Ok(Self { machine, attributes })
    }

    /// An empty module for this machine.
    pub(crate) fn module<'c>(&self, context: &'c Context) -> Module<'c> {
        let module = context.create_module("rwkvc");
        module.set_triple(&self.machine.get_triple());
        module.set_data_layout(&self.machine.get_target_data().get_data_layout());
        module
    }

    /// Says in a function which machine it is for.
    pub(crate) fn mark(&self, context: &Context, function: FunctionValue<'_>) {
        for (key, value) in &self.attributes {
            let attribute = context.create_string_attribute(key, value);
            function.add_attribute(AttributeLoc::Function, attribute);
        }
        for name in ATTRIBUTES {
            let kind = Attribute::get_named_enum_kind_id(name);
            function.add_attribute(AttributeLoc::Function, context.create_enum_attribute(kind, 0));
        }
    }

    pub(crate) fn optimize(&self, module: &Module<'_>) -> Result<(), LowerError> {
        let passes = format!("function({})", PASSES.join(","));
        module
            .run_passes(&passes, &self.machine, PassBuilderOptions::create())
            .map_err(|e| target_error(format!("LLVM's passes failed: {e}")))
    }

    pub(crate) fn write(&self, module: &Module<'_>, file_type: FileType) -> Result<Vec<u8>, LowerError> {
        let buffer = self
            .machine
            .write_to_memory_buffer(module, file_type)
            .map_err(|e| target_error(format!("LLVM cannot write the code: {e}")))?;
        // The buffer may show the zero byte that LLVM puts behind it.
        Ok(buffer.as_slice()[..buffer.get_size()].to_vec())
    }
}

/// The processor whose timing counts.
fn tuning(target: &Target) -> String {
    match target.cpu.as_str() {
        "native" if target.arch == Arch::host() => {
            TargetMachine::get_host_cpu_name().to_string_lossy().into_owned()
        }
        "native" => "generic".to_owned(),
        cpu => cpu.to_owned(),
    }
}

fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = InitializationConfig::default();
        targets::Target::initialize_x86(&config);
        targets::Target::initialize_aarch64(&config);
    });
}
