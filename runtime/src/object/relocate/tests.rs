use super::*;

const PLACE: u64 = 0x7000_1000_0ffc;

/// Patches an instruction at [`PLACE`].
fn arm(kind: u32, instruction: u32, value: u64) -> Result<u32, String> {
    let mut bytes = instruction.to_le_bytes();
    Field {
        place: PLACE,
        bytes: &mut bytes,
    }
    .aarch64(kind, value)?;
    Ok(u32::from_le_bytes(bytes))
}

#[test]
fn arm_addresses() {
    // adrp x0, +1 page: the place is the last word of its page. Immediate 1 = low bits 01, high bits 0.
    assert_eq!(
        arm(e::R_AARCH64_ADR_PREL_PG_HI21, 0x9000_0000, PLACE + 8),
        Ok(0xb000_0000)
    );
    // adrp x0, -1 page.
    assert_eq!(
        arm(e::R_AARCH64_ADR_PREL_PG_HI21, 0x9000_0000, PLACE - 4096),
        Ok(0xf0ff_ffe0)
    );
    // adr x3, +6
    assert_eq!(
        arm(e::R_AARCH64_ADR_PREL_LO21, 0x1000_0003, PLACE + 6),
        Ok(0x5000_0023)
    );
    // add x0, x0, #0x234
    assert_eq!(
        arm(e::R_AARCH64_ADD_ABS_LO12_NC, 0x9100_0000, 0x1234),
        Ok(0x9108_d000)
    );
    // ldr q1, [x0, #0x230]
    assert_eq!(
        arm(e::R_AARCH64_LDST128_ABS_LO12_NC, 0x3dc0_0001, 0x1230),
        Ok(0x3dc0_8c01)
    );
    // ldr s1, [x0, #0x234]
    assert_eq!(
        arm(e::R_AARCH64_LDST32_ABS_LO12_NC, 0xbd40_0001, 0x1234),
        Ok(0xbd42_3401)
    );
    assert!(arm(e::R_AARCH64_LDST64_ABS_LO12_NC, 0xfd40_0001, 0x1234).is_err());
}

#[test]
fn arm_calls() {
    assert_eq!(arm(e::R_AARCH64_CALL26, 0x9400_0000, PLACE + 16), Ok(0x9400_0004));
    assert_eq!(arm(e::R_AARCH64_JUMP26, 0x1400_0000, PLACE - 4), Ok(0x17ff_ffff));
    assert!(arm(e::R_AARCH64_CALL26, 0x9400_0000, PLACE + (1 << 27)).is_err());
    assert!(arm(e::R_AARCH64_CALL26, 0x9400_0000, PLACE + 2).is_err());
}

#[test]
fn distances_must_fit() {
    let mut bytes = [0; 4];
    let far = Field {
        place: 0,
        bytes: &mut bytes,
    }
    .x86_64(e::R_X86_64_PC32, 1 << 31);
    assert_eq!(
        far,
        Err("the distance 2147483648 does not fit into 32 bits".into())
    );
    let field = Field {
        place: 0x2000,
        bytes: &mut bytes,
    };
    assert_eq!(field.x86_64(e::R_X86_64_PLT32, 0x1ffc), Ok(()));
    assert_eq!(i32::from_le_bytes(bytes), -4);
}

#[test]
fn fields_must_lie_in_their_section() {
    let outside = Field {
        place: 0,
        bytes: &mut [0; 7],
    }
    .x86_64(e::R_X86_64_64, 1);
    assert_eq!(outside, Err("it ends outside of its section".into()));
}
