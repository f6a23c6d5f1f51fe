#![cfg(target_arch = "x86_64")]

use super::*;

const KERNELS: &[u8] = include_bytes!("../../tests/fixtures/kernels.o");

#[test]
fn runs_code_with_relocations() {
    let code = Code::load(KERNELS).expect("a good object");
    let mix = code.kernel("mix").expect("the kernel");
    let mut state = [2.0f32, 4.0, 6.0, 8.0];
    let mut x = [1.0f32; 8];
    let buffers = [state.as_mut_ptr().cast::<u8>(), x.as_mut_ptr().cast()];
    // SAFETY: `mix` takes a state of 4 and x of 4 per token.
    unsafe { mix(buffers.as_ptr(), 1, 3, 2) };
    assert_eq!(state, [2.0, 2.5, 3.0, 8.0]);
    assert_eq!(x, [1.0, 3.0, 4.0, 1.0, 1.0, 2.5, 3.0, 1.0]);
}

#[test]
fn lists_global_functions() {
    let code = Code::load(KERNELS).expect("a good object");
    let mut symbols: Vec<_> = code.symbols().collect();
    symbols.sort_unstable();
    assert_eq!(symbols, ["all_logits", "embed", "last_logits", "mix", "scaled"]);
    assert!(code.kernel("SCALE").is_none());
    assert!(code.kernel("").is_none());
}

#[test]
fn refuses_what_is_not_an_object() {
    assert!(matches!(Code::load(b""), Err(ObjectError::Malformed(_))));
    assert!(matches!(
        Code::load(&[0x7f; 4096]),
        Err(ObjectError::Malformed(_))
    ));
}

#[test]
fn refuses_another_instruction_set() {
    let mut bytes = KERNELS.to_vec();
    bytes[18] = 183; // e_machine = EM_AARCH64
    let message = Code::load(&bytes).expect_err("code for Arm").to_string();
    assert_eq!(message, "the code is for aarch64, but this machine is x86_64");
}

#[test]
fn refuses_undefined_symbols() {
    let mut bytes = KERNELS.to_vec();
    bytes[0x248 + 5 * 24 + 6] = 0; // st_shndx of `scaled` = SHN_UNDEF
    let message = Code::load(&bytes).expect_err("a missing function").to_string();
    assert_eq!(
        message,
        "relocation of type 4 at .text+0xb0: it needs `scaled`, which the object does not define"
    );
}

#[test]
fn refuses_unknown_relocations() {
    let mut bytes = KERNELS.to_vec();
    bytes[0x370 + 8] = 11; // R_X86_64_32S
    let message = Code::load(&bytes).expect_err("an absolute address").to_string();
    assert_eq!(message, "relocation of type 11 at .text+0x9: unknown on x86_64");
}

#[test]
fn survives_damage() {
    for at in 0..KERNELS.len() {
        for value in [0x00, 0x01, 0x7f, 0xff] {
            let mut bytes = KERNELS.to_vec();
            bytes[at] = value;
            let _ = Code::load(&bytes);
        }
        let _ = Code::load(&KERNELS[..at]);
    }
}
