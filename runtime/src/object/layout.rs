//! Which sections of an object are placed in memory, and where.

use super::ObjectError;
use ::object::read::elf::ElfFile64;
use ::object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionIndex, SymbolKind, elf};
use std::collections::HashMap;

/// Far above the code of the largest model; keeps PC-relative distances within reach.
const MAX_LEN: usize = 256 << 20;
/// The largest alignment a section may ask for; a page is aligned to at least this.
const MAX_ALIGN: u64 = 4096;

/// One placed section.
pub(super) struct Placed<'d> {
    pub(super) name: String,
    pub(super) data: &'d [u8],
    /// Where it starts in memory.
    pub(super) offset: usize,
    executable: bool,
}

/// Offsets of the sections: executable ones first, constants on the following pages.
pub(super) struct Layout<'d> {
    sections: HashMap<SectionIndex, Placed<'d>>,
    /// Bytes of the executable part: whole pages.
    pub(super) code_len: usize,
    /// Bytes of everything.
    pub(super) len: usize,
}

impl<'d> Layout<'d> {
    pub(super) fn of(file: &ElfFile64<'d>, page: usize) -> Result<Self, ObjectError> {
        let mut layout = Layout {
            sections: HashMap::new(),
            code_len: 0,
            len: 0,
        };
        for executable in [true, false] {
            for section in file.sections() {
                let name = String::from_utf8_lossy(section.name_bytes()?).into_owned();
                let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
                    continue;
                };
                let flag = |bit: u32| sh_flags & u64::from(bit) != 0;
                // Notes are for linkers, and nothing unwinds through a kernel.
                let for_tools = section.elf_section_header().sh_type.get(file.endian()) == elf::SHT_NOTE
                    || name.starts_with(".eh_frame");
                let empty = section.size() == 0;
                if !flag(elf::SHF_ALLOC) || for_tools || flag(elf::SHF_EXECINSTR) != executable {
                    continue;
                }
                let fail = |reason: String| ObjectError::Section {
                    section: name.clone(),
                    reason,
                };
                if flag(elf::SHF_WRITE) && !empty && !name.starts_with(".data.rel.ro") {
                    return Err(fail("is writable data, which kernels do not have".into()));
                }
                let align = section.align().max(1);
                if !align.is_power_of_two() || align > MAX_ALIGN {
                    return Err(fail(format!(
                        "has alignment {align}, not a power of two up to {MAX_ALIGN}"
                    )));
                }
                let data = section.data()?;
                if data.len() as u64 != section.size() {
                    return Err(fail(format!(
                        "has {} bytes, expected {}",
                        data.len(),
                        section.size()
                    )));
                }
                let offset = layout.len.next_multiple_of(align as usize);
                layout.grow(offset.saturating_add(data.len()))?;
                let placed = Placed {
                    name,
                    data,
                    offset,
                    executable,
                };
                layout.sections.insert(section.index(), placed);
            }
            if executable {
                layout.grow(layout.len.max(1).next_multiple_of(page))?;
                layout.code_len = layout.len;
            }
        }
        Ok(layout)
    }

    fn grow(&mut self, len: usize) -> Result<(), ObjectError> {
        if len > MAX_LEN {
            return Err(ObjectError::TooLarge {
                found: len,
                limit: MAX_LEN,
            });
        }
        self.len = len;
        Ok(())
    }

    pub(super) fn get(&self, index: SectionIndex) -> Option<&Placed<'d>> {
        self.sections.get(&index)
    }

    pub(super) fn copy_into(&self, memory: &mut [u8]) {
        for section in self.sections.values() {
            memory[section.offset..section.offset + section.data.len()].copy_from_slice(section.data);
        }
    }

    /// Where a symbol is in memory; `None` if it is not in a placed section.
    pub(super) fn position(&self, section: Option<SectionIndex>, address: u64) -> Option<usize> {
        let section = self.get(section?)?;
        let address = usize::try_from(address)
            .ok()
            .filter(|a| *a <= section.data.len())?;
        Some(section.offset + address)
    }

    /// Offsets of the global functions, by name.
    pub(super) fn functions(&self, file: &ElfFile64<'d>) -> Result<HashMap<String, usize>, ObjectError> {
        let mut functions = HashMap::new();
        for symbol in file.symbols() {
            let Some(section) = symbol.section_index().and_then(|i| self.get(i)) else {
                continue;
            };
            if !symbol.is_global() || symbol.kind() != SymbolKind::Text || !section.executable {
                continue;
            }
            let name = String::from_utf8_lossy(symbol.name_bytes()?).into_owned();
            if symbol.address() >= section.data.len() as u64 {
                let reason = format!("ends before its function `{name}` at {:#x}", symbol.address());
                return Err(ObjectError::Section {
                    section: section.name.clone(),
                    reason,
                });
            }
            functions.insert(name, section.offset + symbol.address() as usize);
        }
        Ok(functions)
    }
}
