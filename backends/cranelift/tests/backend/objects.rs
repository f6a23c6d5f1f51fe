//! What objects contain, and what the backend refuses.

use crate::loaded::verified;
use object::{Object, ObjectSection, ObjectSymbol};
use rwkvc_backend_api::{Arch, Backend, LowerError, Target};
use rwkvc_backend_cranelift::CraneliftBackend;
use rwkvc_ir::DType;
use rwkvc_ir::kernel::builder::Builder;
use rwkvc_ir::kernel::{Access, Affine, Buf, Extent, Inst, Kernel, LoopKind, Scalar, Unary};

use crate::generated::straight_line;
use crate::kernels::{arithmetic, control, single, warp};

fn target(arch: Arch, extensions: &[&str]) -> Target {
    Target {
        arch,
        extensions: extensions.iter().map(|e| e.to_string()).collect(),
        cpu: "generic".into(),
    }
}

/// All targets that differ in what Cranelift emits.
fn targets() -> [Target; 3] {
    let v3 = [
        "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "popcnt", "sse4.2",
    ];
    [
        target(Arch::X86_64, &["avx", "fma"]),
        target(Arch::X86_64, &v3),
        target(Arch::Aarch64, &["neon"]),
    ]
}

fn all_kernels() -> Vec<Kernel> {
    let arithmetic = [1, 2, 4, 8, 16, 64].map(arithmetic);
    let control = [DType::F32, DType::F16, DType::BF16].map(control);
    let generated = (0..30).flat_map(|seed| [1, 4].map(|lanes| straight_line(seed, lanes)));
    arithmetic.into_iter().chain(control).chain(generated).collect()
}

/// The text of a stage.
fn emitted(kernels: &[Kernel], target: &Target, stage: &str) -> String {
    let text = CraneliftBackend
        .emit(&verified(kernels), target, stage)
        .expect("the stage");
    String::from_utf8(text).expect("text")
}

#[test]
fn objects_stand_alone() {
    let kernels = all_kernels();
    for target in targets() {
        let module = CraneliftBackend
            .lower(&verified(&kernels), &target)
            .expect("kernels compile");
        let file = object::File::parse(module.bytes()).expect("an object");
        let expected = match target.arch {
            Arch::X86_64 => object::Architecture::X86_64,
            Arch::Aarch64 => object::Architecture::Aarch64,
            Arch::Cuda => unreachable!("the targets are CPUs"),
        };
        assert_eq!(file.architecture(), expected);
        assert_eq!(
            file.symbols().filter(|s| s.is_undefined()).count(),
            0,
            "undefined symbols for {target:?}"
        );
        for section in file.sections() {
            let name = section.name().expect("a name");
            assert_eq!(
                section.relocations().count(),
                0,
                "relocations of {name} for {target:?}"
            );
        }
        for kernel in &kernels {
            let symbol = file
                .symbol_by_name(&kernel.name)
                .expect("a symbol for each kernel");
            assert!(symbol.is_global() && symbol.size() > 0, "{}", kernel.name);
        }
        assert_eq!(
            module,
            CraneliftBackend
                .lower(&verified(&kernels), &target)
                .expect("kernels compile"),
            "deterministic"
        );
    }
}

#[test]
fn listings_show_every_kernel() {
    let kernels = [arithmetic(4), control(DType::F16)];
    for target in targets() {
        let clif = emitted(&kernels, &target, "clif");
        assert_eq!(clif.matches("function %").count(), 2, "{clif}");
        let asm = emitted(&kernels, &target, "asm");
        let multiply_add = if target.arch == Arch::X86_64 {
            "vfmadd"
        } else {
            "fmla"
        };
        assert!(
            asm.contains(multiply_add) && asm.contains("; kernel control_f16"),
            "{asm}"
        );
    }
    let error = CraneliftBackend
        .emit(&verified(&kernels), &targets()[0], "llvm")
        .expect_err("no LLVM IR");
    assert_eq!(
        error.to_string(),
        "backend `cranelift` has no stage `llvm`, only clif, asm, obj"
    );
}

/// Cranelift moves a load that it may move out of all loops that leave its position alone, past tests that keep the
/// position within the buffer.
#[test]
fn guarded_loads_stay_behind_their_guards() {
    let mut b = Builder::new("guarded");
    let x = b.param("x", DType::F32, Extent::per_token(8), Access::Read);
    let y = b.param("y", DType::F32, Extent::per_token(8), Access::ReadWrite);
    b.parallel("t", Extent::per_token(1), |b, t| {
        let at = Affine::from(t) * 8;
        let copy = |b: &mut Builder, from: Buf, position: Affine| {
            let value = b.load("v", from, position, 1);
            b.store(y, at.clone(), value);
        };
        copy(b, x, at.clone());
        let later = b.address("later", at.clone() - 8);
        let zero = b.index(0);
        let inside = b.less(zero, later);
        b.if_else(
            inside,
            |b| {
                copy(b, x, later.into());
                b.for_loop(LoopKind::Serial, "i", 0, 8, 1, |b, i| {
                    copy(b, x, Affine::from(later) + i);
                    copy(b, x, later.into());
                });
            },
            |b| copy(b, y, at.clone()),
        );
        b.for_loop(LoopKind::Serial, "j", 0, later, 1, |b, j| {
            copy(b, x, j.into());
            copy(b, x, at.clone() - 8);
        });
        b.for_loop(LoopKind::Serial, "k", 0, Extent::per_token(1), 1, |b, _| {
            copy(b, x, at.clone())
        });
    });
    let clif = emitted(&[b.finish()], &targets()[0], "clif");
    let loads: Vec<bool> = clif
        .lines()
        .filter(|l| l.contains("load.f32"))
        .map(|l| l.contains("can_move"))
        .collect();
    assert_eq!(
        loads,
        [true, false, true, false, false, true, false, true],
        "{clif}"
    );
}

/// A kernel that packs two numbers into a word.
fn pack() -> Kernel {
    let mut b = Builder::new("p");
    let x = b.param("x", DType::F32, Extent::fixed(2), Access::Read);
    let y = b.param("y", DType::I32, Extent::fixed(1), Access::Write);
    b.parallel("i", Extent::fixed(1), |b, i| {
        let value = b.load("v", x, 0, 2);
        let word = b.inst("r", Inst::Pack(DType::BF16, value));
        b.store(y, Affine::from(i), word);
    });
    b.finish()
}

fn refusal(kernel: Kernel, target: &Target) -> String {
    let error: LowerError = CraneliftBackend
        .lower(&verified(&[kernel]), target)
        .expect_err("a refusal");
    error.to_string()
}

#[test]
fn refusals_name_what_is_wrong() {
    let [host, ..] = targets();
    let exp2 = single("e", Scalar::F32, |x| Inst::Unary(Unary::Exp2, x));
    assert_eq!(
        refusal(exp2, &host),
        "backend `cranelift`: kernel `e`: `exp2` exists on GPUs only; it must be expanded"
    );
    assert_eq!(
        refusal(pack(), &host),
        "backend `cranelift`: kernel `p`: `pack` exists on GPUs only"
    );
    let shuffle = warp("s", |b, x| b.inst("r", Inst::Shuffle(x, 1)));
    let refused = refusal(shuffle, &host);
    assert!(
        refused.contains("kernel `s`: `shuffle`, `mma`, or a barrier inside a thread loop needs"),
        "{refused}"
    );
    let copy = single("c", Scalar::F32, Inst::Copy);
    assert_eq!(
        refusal(copy.clone(), &target(Arch::X86_64, &["avx", "avx2"])),
        "backend `cranelift`: x86-64 code needs the extension `fma`, which the target lacks"
    );
    let twice = CraneliftBackend
        .lower(&verified(&[copy.clone(), copy]), &host)
        .expect_err("a name taken twice");
    assert!(twice.to_string().contains("kernel `c`"), "{twice}");
}
