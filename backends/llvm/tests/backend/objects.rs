//! What objects contain, and what the backend refuses.

use crate::loaded::verified;
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, SectionKind, elf};
use rwkvc_backend_api::{Arch, Backend, Features, Target};
use rwkvc_backend_llvm::LlvmBackend;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Affine, Extent, Inst, Kernel, LoopKind, Scalar, Unary};

use crate::generated::straight_line;
use crate::kernels::{arithmetic, control, single, warp};

fn target(text: &str) -> Target {
    Target::parse(text).expect(text)
}

fn targets() -> Vec<Target> {
    let targets = Target::levels().into_iter().map(|(_, target)| target);
    // PTX is no object.
    targets.filter(|target| target.arch != Arch::Cuda).collect()
}

fn all_kernels() -> Vec<Kernel> {
    let arithmetic = [1, 2, 4, 8, 16, 64].map(arithmetic);
    let control = [DType::F32, DType::F16, DType::BF16].map(control);
    let generated = [1, 8, 16].map(|lanes| straight_line(5, lanes));
    let halves = [DType::F16, DType::BF16];
    let formats = halves.iter().flat_map(|&half| {
        [1, 2, 4, 8, 16, 64]
            .iter()
            .flat_map(move |&lanes| [convert(half, DType::F32, lanes), convert(DType::F32, half, lanes)])
    });
    arithmetic
        .into_iter()
        .chain(control)
        .chain(generated)
        .chain(formats)
        .chain([fill()])
        .collect()
}

/// Copies elements from one format to another, `lanes` at once.
fn convert(from: DType, to: DType, lanes: u32) -> Kernel {
    let mut b = Builder::new(format!("convert_{from}_{to}_{lanes}"));
    let len = Extent::per_token(lanes.into());
    let x = b.param("x", from, len, Access::Read);
    let y = b.param("y", to, len, Access::Write);
    b.parallel("t", Extent::per_token(1), |b, t| {
        let at = Affine::from(t) * i64::from(lanes);
        let value = b.load("v", x, at.clone(), lanes);
        b.store(y, at, value);
    });
    b.finish()
}

/// Loops that look like calls of memset and memcpy.
fn fill() -> Kernel {
    let mut b = Builder::new("fill");
    let x = b.param("x", DType::F32, Extent::per_token(1000), Access::Read);
    let y = b.param("y", DType::F32, Extent::per_token(1000), Access::Write);
    let z = b.param("z", DType::F32, Extent::per_token(1000), Access::Write);
    b.parallel("t", Extent::per_token(1), |b, t| {
        let zero = b.float(0.0, 1);
        b.for_loop(LoopKind::Serial, "i", 0, 1000, 1, |b, i| {
            b.store(y, Affine::from(t) * 1000 + i, zero);
        });
        b.for_loop(LoopKind::Serial, "i", 0, 1000, 1, |b, i| {
            let value = b.load("v", x, Affine::from(t) * 1000 + i, 1);
            b.store(z, Affine::from(t) * 1000 + i, value);
        });
        b.for_loop(LoopKind::Unrolled, "i", 0, 500, 1, |b, i| {
            b.store(y, Affine::from(t) * 1000 + i, zero)
        });
    });
    b.finish()
}

/// The text of a stage.
fn emitted(kernels: &[Kernel], target: &Target, stage: &str) -> String {
    let text = LlvmBackend
        .emit(&verified(kernels), target, stage)
        .expect("the stage");
    String::from_utf8(text).expect("text")
}

#[test]
fn objects_stand_alone() {
    let kernels = all_kernels();
    for target in targets() {
        let module = LlvmBackend
            .lower(&verified(&kernels), &target)
            .expect("kernels compile");
        let file = object::File::parse(module.bytes()).expect("an object");
        assert_eq!(
            format!("{:?}", file.architecture()).to_lowercase(),
            target.arch.name()
        );
        assert_eq!(
            file.symbols().filter(|s| s.is_undefined()).count(),
            0,
            "undefined symbols for {target}"
        );
        for section in file.sections() {
            let name = section.name().expect("a name");
            let is_loaded = name.starts_with(".text") || name.starts_with(".rodata");
            assert!(
                is_loaded || section.relocations().count() == 0,
                "relocations of {name} for {target}"
            );
            let is_data = matches!(
                section.kind(),
                SectionKind::Data | SectionKind::UninitializedData | SectionKind::Tls
            );
            assert!(!is_data || section.size() == 0, "{name} for {target}");
            assert!(
                !name.starts_with(".eh_frame") && !name.starts_with(".init"),
                "{name} for {target}"
            );
            for (_, relocation) in section.relocations() {
                let RelocationFlags::Elf { r_type } = relocation.flags() else {
                    panic!("an ELF relocation")
                };
                let known: &[u32] = match target.arch {
                    Arch::X86_64 => &[elf::R_X86_64_PC32, elf::R_X86_64_PLT32],
                    Arch::Aarch64 => &[
                        elf::R_AARCH64_ADR_PREL_PG_HI21,
                        elf::R_AARCH64_ADD_ABS_LO12_NC,
                        elf::R_AARCH64_LDST32_ABS_LO12_NC,
                        elf::R_AARCH64_LDST64_ABS_LO12_NC,
                        elf::R_AARCH64_LDST128_ABS_LO12_NC,
                    ],
                    Arch::Cuda => panic!("PTX has no relocations"),
                };
                assert!(known.contains(&r_type), "relocation {r_type} for {target}");
            }
        }
        for kernel in &kernels {
            let symbol = file
                .symbol_by_name(&kernel.name)
                .expect("a symbol for each kernel");
            assert!(symbol.is_global() && symbol.size() > 0, "{}", kernel.name);
        }
        let again = LlvmBackend
            .lower(&verified(&kernels), &target)
            .expect("kernels compile");
        assert!(module == again, "deterministic");
    }
}

#[test]
fn listings_show_every_kernel() {
    let kernels = [arithmetic(4), control(DType::F16)];
    for target in targets() {
        let llvm = emitted(&kernels, &target, "llvm");
        assert!(
            llvm.contains("define void @arithmetic_4(") && llvm.contains("define void @control_f16("),
            "{llvm}"
        );
        assert!(!llvm.contains("alloca float"), "mutable registers are values");
        let asm = emitted(&kernels, &target, "asm");
        let multiply_add = if target.arch == Arch::X86_64 {
            "vfmadd"
        } else {
            "fmla"
        };
        assert!(
            asm.contains(multiply_add) && asm.contains("control_f16:"),
            "{asm}"
        );
        let error = LlvmBackend
            .emit(&verified(&kernels), &target, "clif")
            .expect_err("no Cranelift IR");
        assert_eq!(
            error.to_string(),
            "backend `llvm` has no stage `clif`, only llvm, asm, obj, ptx"
        );
    }
}

/// Copies rows of `x` to `y` once for each of `count`.
fn copies() -> Kernel {
    let mut b = Builder::new("copies");
    let x = b.param("x", DType::F32, Extent::fixed(16), Access::Read);
    let y = b.param("y", DType::F32, Extent::per_token(16), Access::Write);
    b.parallel("t", Extent::per_token(1), |b, t| {
        let value = b.load("v", x, 0, 16);
        b.store(y, Affine::from(t) * 16, value);
    });
    b.finish()
}

#[test]
fn parameters_do_not_overlap() {
    let asm = emitted(&[copies()], &target("cpu:x86-64-v4"), "llvm");
    let load = asm.find("load <16 x float>").expect("the load");
    let phi = asm.find("phi i64").expect("the loop");
    assert!(load < phi, "the load leaves the loop:\n{asm}");
}

#[test]
fn vectors_are_as_wide_as_the_machine_has_them() {
    for (text, f32_lanes, register) in [
        ("cpu:x86-64-v3", 8, "ymm"),
        ("cpu:x86-64-v4", 16, "zmm"),
        ("cpu:aarch64", 4, "q"),
    ] {
        let target = target(text);
        let Ok(Features::Cpu(features)) = LlvmBackend.supports(&target) else {
            panic!("{text} is a CPU")
        };
        assert_eq!(features.f32_lanes, f32_lanes, "{text}");
        let asm = emitted(&[arithmetic(16)], &target, "asm");
        assert!(asm.contains(register), "{text}: {asm}");
    }
}

fn refusal(kernels: &[Kernel], target: &Target) -> String {
    LlvmBackend
        .lower(&verified(kernels), target)
        .expect_err("a refusal")
        .to_string()
}

#[test]
fn refusals_name_what_is_wrong() {
    let v3 = target("cpu:x86-64-v3");
    let exp2 = single("e", Scalar::F32, |x| Inst::Unary(Unary::Exp2, x));
    assert_eq!(
        refusal(&[exp2], &v3),
        "backend `llvm`: kernel `e`: `exp2` exists on GPUs only; it must be expanded"
    );
    let shuffle = warp("s", |b, x| b.inst("r", Inst::Shuffle(x, 1)));
    assert_eq!(
        refusal(&[shuffle], &v3),
        "backend `llvm`: kernel `s`: `shuffle` exists on GPUs only"
    );
    let copy = single("c", Scalar::F32, Inst::Copy);
    let waits = warp("w", |b, x| {
        b.barrier();
        x
    });
    assert_eq!(
        refusal(&[waits], &v3),
        "backend `llvm`: kernel `w`: `barrier` inside a thread loop exists on GPUs only"
    );
    assert_eq!(
        refusal(std::slice::from_ref(&copy), &target("cpu:x86-64+avx2")),
        "backend `llvm`: x86_64 code needs the extension `fma`, which the target lacks"
    );
    let mut magic = v3.clone();
    magic.extensions.push("magic".into());
    assert_eq!(
        refusal(std::slice::from_ref(&copy), &magic),
        "backend `llvm`: unknown extension `magic` of x86_64"
    );
    assert_eq!(
        refusal(&[copy.clone(), copy], &v3),
        "backend `llvm`: kernel `c`: another kernel has this name"
    );
}
