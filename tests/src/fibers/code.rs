//! Machine code of LLVM IR whose intrinsic functions are gone.

use std::collections::HashMap;

use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::module::Module;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetMachineOptions,
};
use inkwell::types::{AnyTypeEnum, BasicTypeEnum};
use inkwell::values::FunctionValue;
use rwkvc_abi::KernelFn;
use rwkvc_runtime::object::Code;

use super::memory::Guarded;

/// LLVM's number for the calling convention of PTX entries, and for that of C.
const PTX_KERNEL: u32 = 71;
const C: u32 = 0;

/// LLVM's number for the memory that a block shares.
const SHARED: u16 = 3;

/// An entry as a function of its parameters in memory, 64 bits each. It has the form of a kernel for CPUs, of which
/// only the first parameter matters.
pub(super) struct Entry {
    pub(super) function: KernelFn,
    pub(super) params: usize,
    /// Threads of a block.
    pub(super) threads: u32,
}

/// What a module of LLVM IR became.
pub(super) struct Compiled {
    pub(super) entries: HashMap<String, Entry>,
    /// The memory of the running block, by name.
    pub(super) shared: Vec<(String, Guarded)>,
    /// Keeps the entries in memory.
    pub(super) _code: Code,
}

pub(super) fn compile(text: &str) -> Result<Compiled, String> {
    Target::initialize_native(&InitializationConfig::default())?;
    let triple = TargetMachine::get_default_triple();
    let (cpu, features) = (
        TargetMachine::get_host_cpu_name(),
        TargetMachine::get_host_cpu_features(),
    );
    let (cpu, features) = (cpu.to_string(), features.to_string());
    let options = TargetMachineOptions::new()
        .set_cpu(&cpu)
        .set_features(&features)
        .set_level(OptimizationLevel::Default)
        .set_reloc_mode(RelocMode::PIC)
        .set_code_model(CodeModel::Small);
    let machine = Target::from_triple(&triple)
        .map_err(|e| e.to_string())?
        .create_target_machine_from_options(&triple, options)
        .ok_or("LLVM has no machine like this one")?;

    let context = Context::create();
    let buffer = MemoryBuffer::create_from_memory_range_copy(text.as_bytes(), "kernels");
    let module = context.create_module_from_ir(buffer).map_err(|e| e.to_string())?;
    module.set_triple(&triple);
    module.set_data_layout(&machine.get_target_data().get_data_layout());

    let shared = place_shared(&module, &machine)?;
    let mut starts = vec![];
    for function in module.get_functions().filter(|f| f.count_basic_blocks() > 0) {
        for (key, value) in [("target-cpu", &cpu), ("target-features", &features)] {
            function.add_attribute(
                AttributeLoc::Function,
                context.create_string_attribute(key, value),
            );
        }
        if function.get_call_conventions() == PTX_KERNEL {
            function.set_call_conventions(C);
            starts.push(function);
        }
    }
    let mut entries = vec![];
    for function in starts {
        let name = function.get_name().to_string_lossy().into_owned();
        let threads =
            threads(function).ok_or_else(|| format!("`{name}` does not say how many threads it needs"))?;
        let symbol = start(&context, &module, function, &name).map_err(|e| format!("`{name}`: {e}"))?;
        entries.push((name, symbol, function.count_params() as usize, threads));
    }
    module
        .verify()
        .map_err(|e| format!("LLVM refuses the changed code: {e}"))?;
    let object = machine
        .write_to_memory_buffer(&module, FileType::Object)
        .map_err(|e| e.to_string())?;
    let code = Code::load(&object.as_slice()[..object.get_size()]).map_err(|e| e.to_string())?;
    let entries = entries.into_iter().map(|(name, symbol, params, threads)| {
        let function = code
            .kernel(&symbol)
            .ok_or_else(|| format!("`{name}` is not in its object"))?;
        let entry = Entry {
            function,
            params,
            threads,
        };
        Ok((name, entry))
    });
    Ok(Compiled {
        entries: entries.collect::<Result<_, String>>()?,
        shared,
        _code: code,
    })
}

/// Gives what blocks share a place in this process.
fn place_shared(module: &Module<'_>, machine: &TargetMachine) -> Result<Vec<(String, Guarded)>, String> {
    let index = module.get_context().i64_type();
    let layout = machine.get_target_data();
    let globals: Vec<_> = module.get_globals().collect();
    let mut shared = vec![];
    for global in globals {
        let pointer = global.as_pointer_value();
        if pointer.get_type().get_address_space() != SHARED.into() {
            continue;
        }
        let name = global.get_name().to_string_lossy().into_owned();
        let bytes = match global.get_value_type() {
            AnyTypeEnum::ArrayType(ty) => layout.get_abi_size(&ty),
            other => return Err(format!("`{name}` is {other}, expected an array")),
        };
        if bytes == 0 {
            return Err(format!("`{name}` has no size"));
        }
        let memory = Guarded::undefined(bytes as usize);
        let address = index.const_int(memory.address(), false);
        pointer.replace_all_uses_with(address.const_to_pointer(pointer.get_type()));
        // SAFETY: nothing uses it any more.
        unsafe { global.delete() };
        shared.push((name, memory));
    }
    Ok(shared)
}

fn threads(function: FunctionValue<'_>) -> Option<u32> {
    let attribute = function.get_string_attribute(AttributeLoc::Function, "nvvm.reqntid")?;
    let size = attribute.get_string_value().to_string_lossy();
    size.split(',').next()?.parse().ok()
}

/// Adds a function that calls an entry with parameters from memory; returns its name.
fn start<'c>(
    context: &'c Context,
    module: &Module<'c>,
    entry: FunctionValue<'c>,
    name: &str,
) -> Result<String, String> {
    let pointer = context.ptr_type(0_u16.into());
    let index = context.i64_type();
    let parameters = [pointer.into(), index.into(), index.into(), index.into()];
    let symbol = format!("{name}.start");
    let function = module.add_function(&symbol, context.void_type().fn_type(&parameters, false), None);
    let b = context.create_builder();
    b.position_at_end(context.append_basic_block(function, "entry"));
    let arguments = function
        .get_first_param()
        .ok_or("it has no parameters")?
        .into_pointer_value();
    let mut values = vec![];
    for (parameter, i) in entry.get_param_iter().zip(0..) {
        let place = [index.const_int(i, false)];
        // SAFETY: an address of one type and one index is what LLVM expects.
        let place = unsafe { b.build_gep(index, arguments, &place, "") }.map_err(|e| e.to_string())?;
        let value = b
            .build_load(index, place, "")
            .map_err(|e| e.to_string())?
            .into_int_value();
        let value = match parameter.get_type() {
            BasicTypeEnum::PointerType(ty) => b.build_int_to_ptr(value, ty, "").map(Into::into),
            BasicTypeEnum::IntType(ty) => b.build_int_truncate_or_bit_cast(value, ty, "").map(Into::into),
            other => return Err(format!("a parameter is {other}, expected an address or a number")),
        };
        values.push(value.map_err(|e| e.to_string())?);
    }
    b.build_call(entry, &values, "").map_err(|e| e.to_string())?;
    b.build_return(None).map_err(|e| e.to_string())?;
    Ok(symbol)
}
