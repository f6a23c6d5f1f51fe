//! Filling in the addresses that were unknown when the object was written.

use super::layout::{Layout, Placed};
use super::{HOST_ARCH, ObjectError};
use ::object::elf as e;
use ::object::read::elf::ElfFile64;
use ::object::{
    Architecture, Object, ObjectSection, ObjectSymbol, Relocation, RelocationFlags, RelocationTarget,
};

/// The CPUs whose relocations are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    pub(super) fn of(file: &ElfFile64<'_>) -> Result<Self, ObjectError> {
        match file.architecture() {
            Architecture::X86_64 if file.is_little_endian() => Ok(Machine::X86_64),
            Architecture::Aarch64 if file.is_little_endian() => Ok(Machine::Aarch64),
            other => Err(ObjectError::Architecture {
                found: format!("{other:?}"),
                expected: HOST_ARCH,
            }),
        }
    }

    pub(super) fn check_host(self) -> Result<(), ObjectError> {
        let name = match self {
            Machine::X86_64 => "x86_64",
            Machine::Aarch64 => "aarch64",
        };
        if name == HOST_ARCH {
            return Ok(());
        }
        Err(ObjectError::Architecture {
            found: name.into(),
            expected: HOST_ARCH,
        })
    }
}

/// Applies the relocations of all placed sections to `memory`, which will run at address `base`.
pub(super) fn apply(
    machine: Machine,
    file: &ElfFile64<'_>,
    layout: &Layout<'_>,
    base: u64,
    memory: &mut [u8],
) -> Result<(), ObjectError> {
    for section in file.sections() {
        let Some(placed) = layout.get(section.index()) else {
            continue;
        };
        for (offset, relocation) in section.relocations() {
            let kind = match relocation.flags() {
                RelocationFlags::Elf { r_type } => r_type,
                _ => 0,
            };
            let patch = |memory: &mut [u8]| -> Result<(), String> {
                let target = base.wrapping_add(target(file, layout, &relocation)? as u64);
                let value = target.wrapping_add_signed(relocation.addend());
                let at = offset_within(placed, offset)?;
                let bytes = &mut memory[at..placed.offset + placed.data.len()];
                let field = Field {
                    place: base.wrapping_add(at as u64),
                    bytes,
                };
                match machine {
                    Machine::X86_64 => field.x86_64(kind, value),
                    Machine::Aarch64 => field.aarch64(kind, value),
                }
            };
            patch(memory).map_err(|reason| {
                let section = placed.name.clone();
                ObjectError::Relocation {
                    kind,
                    section,
                    offset,
                    reason,
                }
            })?;
        }
    }
    Ok(())
}

fn offset_within(section: &Placed<'_>, offset: u64) -> Result<usize, String> {
    usize::try_from(offset)
        .ok()
        .filter(|o| *o < section.data.len())
        .map(|o| section.offset + o)
        .ok_or_else(|| format!("the section has only {} bytes", section.data.len()))
}

/// The offset in memory that a relocation refers to, without its addend.
fn target(file: &ElfFile64<'_>, layout: &Layout<'_>, relocation: &Relocation) -> Result<usize, String> {
    if relocation.has_implicit_addend() {
        return Err("the addend is stored in the code".into());
    }
    let RelocationTarget::Symbol(index) = relocation.target() else {
        return Err("it names no symbol".into());
    };
    let symbol = file.symbol_by_index(index).map_err(|error| error.to_string())?;
    let name = String::from_utf8_lossy(symbol.name_bytes().unwrap_or_default());
    if symbol.is_undefined() {
        return Err(format!("it needs `{name}`, which the object does not define"));
    }
    layout
        .position(symbol.section_index(), symbol.address())
        .ok_or_else(|| format!("its symbol `{name}` is not in the loaded code or constants"))
}

/// The bytes that a relocation changes: from its position to the end of its section.
struct Field<'m> {
    place: u64,
    bytes: &'m mut [u8],
}

impl Field<'_> {
    /// `value` is symbol + addend.
    fn x86_64(self, kind: u32, value: u64) -> Result<(), String> {
        let distance = value.wrapping_sub(self.place) as i64;
        match kind {
            e::R_X86_64_NONE => Ok(()),
            e::R_X86_64_64 => self.write(value.to_le_bytes()),
            e::R_X86_64_PC64 => self.write(distance.to_le_bytes()),
            e::R_X86_64_PC32 | e::R_X86_64_PLT32 => self.write((signed(distance, 32)? as i32).to_le_bytes()),
            _ => Err("unknown on x86_64".into()),
        }
    }

    fn aarch64(self, kind: u32, value: u64) -> Result<(), String> {
        let distance = value.wrapping_sub(self.place) as i64;
        let low = (value & 0xfff) as u32;
        match kind {
            e::R_AARCH64_NONE => Ok(()),
            e::R_AARCH64_ABS64 => self.write(value.to_le_bytes()),
            e::R_AARCH64_PREL64 => self.write(distance.to_le_bytes()),
            e::R_AARCH64_PREL32 => self.write((signed(distance, 32)? as i32).to_le_bytes()),
            e::R_AARCH64_CALL26 | e::R_AARCH64_JUMP26 => {
                let words = signed(scaled(distance as u64, 2)? as i64, 28)? >> 2;
                self.insert(0, 26, words as u32)
            }
            e::R_AARCH64_ADR_PREL_LO21 => self.insert_adr(signed(distance, 21)?),
            e::R_AARCH64_ADR_PREL_PG_HI21 => {
                let pages = (value & !0xfff).wrapping_sub(self.place & !0xfff) as i64;
                self.insert_adr(signed(pages, 33)? >> 12)
            }
            e::R_AARCH64_ADD_ABS_LO12_NC | e::R_AARCH64_LDST8_ABS_LO12_NC => self.insert(10, 12, low),
            e::R_AARCH64_LDST16_ABS_LO12_NC => self.insert(10, 12, scaled(low.into(), 1)? as u32 >> 1),
            e::R_AARCH64_LDST32_ABS_LO12_NC => self.insert(10, 12, scaled(low.into(), 2)? as u32 >> 2),
            e::R_AARCH64_LDST64_ABS_LO12_NC => self.insert(10, 12, scaled(low.into(), 3)? as u32 >> 3),
            e::R_AARCH64_LDST128_ABS_LO12_NC => self.insert(10, 12, scaled(low.into(), 4)? as u32 >> 4),
            _ => Err("unknown on aarch64".into()),
        }
    }

    fn write<const N: usize>(self, bytes: [u8; N]) -> Result<(), String> {
        let field = self
            .bytes
            .first_chunk_mut()
            .ok_or("it ends outside of its section")?;
        *field = bytes;
        Ok(())
    }

    /// Replaces `bits` bits of an instruction, from bit `shift` on.
    fn insert(self, shift: u32, bits: u32, value: u32) -> Result<(), String> {
        let mask = ((1u32 << bits) - 1) << shift;
        let field = self.bytes.first_chunk().ok_or("it ends outside of its section")?;
        let word = u32::from_le_bytes(*field) & !mask | (value << shift) & mask;
        self.write(word.to_le_bytes())
    }

    /// The split immediate of `adr` and `adrp`: 2 low bits from bit 29, 19 high bits from bit 5.
    fn insert_adr(self, value: i64) -> Result<(), String> {
        let Field { place, bytes } = self;
        Field {
            place,
            bytes: &mut *bytes,
        }
        .insert(29, 2, value as u32)?;
        Field { place, bytes }.insert(5, 19, (value >> 2) as u32)
    }
}

/// `value`, if it fits into `bits` bits with sign.
fn signed(value: i64, bits: u32) -> Result<i64, String> {
    let limit = 1i64 << (bits - 1);
    if (-limit..limit).contains(&value) {
        return Ok(value);
    }
    Err(format!("the distance {value} does not fit into {bits} bits"))
}

/// `value`, if its `bits` low bits are zero.
fn scaled(value: u64, bits: u32) -> Result<u64, String> {
    if value.trailing_zeros() >= bits {
        return Ok(value);
    }
    Err(format!(
        "the address {value:#x} is not a multiple of {}",
        1 << bits
    ))
}

#[cfg(test)]
mod tests;
