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
use rwkvc_backend_api::{Arch, LowerError, Target, Unsupported};

use crate::dot::Dots;
use crate::{module_error, unsupported};

/// Without these, LLVM would call a library for fused multiplication and for f16.
const REQUIRED_X86: [&str; 3] = ["avx2", "fma", "f16c"];

const REQUIRED_AARCH64: [&str; 1] = ["neon"];

/// What kernels for CPUs gain from, in order. The pipeline `default<O3>` gives no faster code and takes several times as long:
/// kernels have no calls, and their vectors and tiles are chosen already.
const CPU_PASSES: [&str; 9] = [
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

/// What kernels for GPUs gain from, in order. LLVM's own preparation of PTX follows: it splits constants off addresses.
const GPU_PASSES: [&str; 8] = [
    "sroa",
    "early-cse<memssa>",
    "simplifycfg",
    INSTCOMBINE,
    // Numbers of blocks and threads are small, and so is much that is computed of them.
    "correlated-propagation",
    "loop-mssa(loop-rotate,licm)",
    "early-cse<memssa>",
    INSTCOMBINE,
];

/// GPUs by their code's name, and the oldest version of PTX that is fit for them. Each runs the code of those before.
const GPUS: [(&str, &str); 6] = [
    ("sm_80", "ptx71"),
    ("sm_86", "ptx71"),
    ("sm_89", "ptx78"),
    ("sm_90", "ptx78"),
    ("sm_100", "ptx86"),
    ("sm_120", "ptx87"),
];

const INSTCOMBINE: &str = "instcombine<no-verify-fixpoint>";

/// What is true of each function.
const FLAGS: [&str; 2] = ["nounwind", "nofree"];

/// A machine that LLVM generates code for.
pub(crate) struct Machine {
    machine: TargetMachine,
    /// Attributes of functions, as keys and values.
    attributes: Vec<(&'static str, String)>,
    /// Attributes of functions that have no values.
    flags: Vec<&'static str>,
    /// How products of bytes are added up.
    pub(crate) dots: Dots,
    passes: String,
}

impl Machine {
    /// # Errors
    /// If the target lacks an extension that kernels cannot do without, or names an unknown one.
    pub(crate) fn new(target: &Target) -> Result<Self, Unsupported> {
        let is_unknown = |name: &&String| target.arch.extension(name).is_none();
        if let Some(unknown) = target.extensions.iter().find(is_unknown) {
            return Err(unsupported(format!(
                "unknown extension `{unknown}` of {}",
                target.arch
            )));
        }
        match target.arch {
            Arch::X86_64 => Self::cpu(target, "x86_64-unknown-linux-gnu", "x86-64", &REQUIRED_X86),
            Arch::Aarch64 => Self::cpu(target, "aarch64-unknown-linux-gnu", "generic", &REQUIRED_AARCH64),
            Arch::Cuda => Self::gpu(target),
        }
    }

    fn cpu(target: &Target, triple: &str, base: &str, required: &[&str]) -> Result<Self, Unsupported> {
        if let Some(missing) = required.iter().find(|name| !target.has(name)) {
            return Err(unsupported(format!(
                "{} code needs the extension `{missing}`, which the target lacks",
                target.arch
            )));
        }
        let features: Vec<String> = target.extensions.iter().map(|e| format!("+{e}")).collect();
        let mut machine = Self::with(triple, base, &features.join(","), &CPU_PASSES)?;
        machine.attributes.push(("tune-cpu", tuning(target)));
        machine.flags.push("nosync");
        machine.dots = Dots::of(target);
        Ok(machine)
    }

    fn gpu(target: &Target) -> Result<Self, Unsupported> {
        let newest = GPUS.iter().rev().find(|(name, _)| target.has(name));
        let (name, version) = newest.ok_or_else(no_generation)?;
        Self::with("nvptx64-nvidia-cuda", name, &format!("+{version}"), &GPU_PASSES)
    }

    fn with(triple: &str, cpu: &str, features: &str, passes: &[&str]) -> Result<Self, Unsupported> {
        initialize();
        let triple = TargetTriple::create(triple);
        let llvm_target = targets::Target::from_triple(&triple).map_err(|e| unsupported(e.to_string()))?;
        let options = TargetMachineOptions::new()
            .set_cpu(cpu)
            .set_features(features)
            .set_level(OptimizationLevel::Aggressive)
            .set_reloc_mode(RelocMode::PIC)
            .set_code_model(CodeModel::Small);
        let machine = llvm_target
            .create_target_machine_from_options(&triple, options)
            .ok_or_else(|| unsupported(format!("LLVM knows no machine with {features}")))?;
        Ok(Self {
            machine,
            attributes: vec![
                ("target-cpu", cpu.to_owned()),
                ("target-features", features.to_owned()),
                // Otherwise loops over memory become calls of memset and memcpy.
                ("no-builtins", String::new()),
            ],
            flags: FLAGS.to_vec(),
            dots: Dots::Bytes,
            // Parts of the walker go into it when they are optimized.
            passes: format!(
                "function({}),always-inline,function({INSTCOMBINE})",
                passes.join(",")
            ),
        })
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
        for name in &self.flags {
            let kind = Attribute::get_named_enum_kind_id(name);
            function.add_attribute(AttributeLoc::Function, context.create_enum_attribute(kind, 0));
        }
    }

    pub(crate) fn optimize(&self, module: &Module<'_>) -> Result<(), LowerError> {
        module
            .run_passes(&self.passes, &self.machine, PassBuilderOptions::create())
            .map_err(|e| module_error(format!("LLVM's passes failed: {e}")))
    }

    pub(crate) fn write(&self, module: &Module<'_>, file_type: FileType) -> Result<Vec<u8>, LowerError> {
        let buffer = self
            .machine
            .write_to_memory_buffer(module, file_type)
            .map_err(|e| module_error(format!("LLVM cannot write the code: {e}")))?;
        // The buffer may show the zero byte that LLVM puts behind it.
        Ok(buffer.as_slice()[..buffer.get_size()].to_vec())
    }
}

/// Why there is no code for a GPU of no generation.
pub(crate) fn no_generation() -> Unsupported {
    let oldest = GPUS[0].0;
    unsupported(format!(
        "GPU code needs the extension `{oldest}`, which the target lacks"
    ))
}

/// The CPU whose timing counts.
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
        targets::Target::initialize_nvptx(&config);
    });
}
