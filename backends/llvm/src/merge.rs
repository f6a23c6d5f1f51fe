//! Objects of single kernels made into one.

use std::collections::HashMap;

use object::write::{Object, Relocation, SectionId, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, File, Object as _, ObjectSection, ObjectSymbol, RelocationTarget,
    SectionIndex, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use rwkvc_backend_api::Arch;

/// Why an object of LLVM is not what a kernel should become.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) String);

impl From<object::Error> for Fault {
    fn from(error: object::Error) -> Self {
        Fault(format!("LLVM wrote an unreadable object: {error}"))
    }
}

impl From<object::write::Error> for Fault {
    fn from(error: object::write::Error) -> Self {
        Fault(format!("the objects of kernels cannot be merged: {error}"))
    }
}

/// Code and constants of several objects, and nothing else of them.
pub(crate) struct Merged(Object<'static>);

impl Merged {
    pub(crate) fn new(arch: Arch) -> Self {
        let architecture = match arch {
            Arch::X86_64 => Architecture::X86_64,
            Arch::Aarch64 => Architecture::Aarch64,
            Arch::Cuda => unreachable!("PTX is text"),
        };
        let mut object = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
        // Tells linkers that the stack need not be executable.
        object.add_section(vec![], b".note.GNU-stack".to_vec(), SectionKind::Other);
        Self(object)
    }

    /// # Errors
    /// If the code calls something that is not in the object, as nothing could give it to the loader, or if there is
    /// data that is not constant.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let file = File::parse(bytes)?;
        let sections = self.add_sections(&file)?;
        for symbol in file.symbols() {
            if symbol.is_undefined() {
                let name = String::from_utf8_lossy(symbol.name_bytes()?).into_owned();
                return Err(Fault(format!(
                    "the code calls `{name}`, but must not call anything"
                )));
            }
            let section = symbol.section_index().and_then(|index| sections.get(&index));
            if let (true, Some(&section)) = (symbol.is_global(), section) {
                self.0.add_symbol(Symbol {
                    name: symbol.name_bytes()?.to_vec(),
                    value: symbol.address(),
                    size: symbol.size(),
                    kind: SymbolKind::Text,
                    scope: SymbolScope::Dynamic,
                    weak: false,
                    section: SymbolSection::Section(section),
                    flags: SymbolFlags::None,
                });
            }
        }
        self.add_relocations(&file, &sections)
    }

    fn add_sections(&mut self, file: &File<'_>) -> Result<HashMap<SectionIndex, SectionId>, Fault> {
        let mut sections = HashMap::new();
        for section in file.sections().filter(|s| s.size() > 0) {
            let (name, kind) = match section.kind() {
                SectionKind::Text => (".text", SectionKind::Text),
                // Constants of one size come in a section for linkers to merge.
                SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                    (".rodata", SectionKind::ReadOnlyData)
                }
                SectionKind::Metadata | SectionKind::Other | SectionKind::Note | SectionKind::Linker => {
                    continue;
                }
                kind => {
                    let name = String::from_utf8_lossy(section.name_bytes()?).into_owned();
                    return Err(Fault(format!(
                        "section {name} is {kind:?}, expected code or constants"
                    )));
                }
            };
            let id = self.0.add_section(vec![], name.as_bytes().to_vec(), kind);
            self.0.append_section_data(id, section.data()?, section.align());
            sections.insert(section.index(), id);
        }
        Ok(sections)
    }

    /// Relocations, made relative to sections.
    fn add_relocations(
        &mut self,
        file: &File<'_>,
        sections: &HashMap<SectionIndex, SectionId>,
    ) -> Result<(), Fault> {
        for section in file.sections() {
            let Some(&id) = sections.get(&section.index()) else {
                continue;
            };
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else {
                    return Err(Fault("a relocation has no symbol".to_owned()));
                };
                let symbol = file.symbol_by_index(symbol)?;
                let Some(&target) = symbol.section_index().and_then(|index| sections.get(&index)) else {
                    return Err(Fault(
                        "a relocation leads to neither code nor constants".to_owned(),
                    ));
                };
                let addend = relocation.addend().wrapping_add_unsigned(symbol.address());
                let symbol = self.0.section_symbol(target);
                let relocation = Relocation {
                    offset,
                    symbol,
                    addend,
                    flags: relocation.flags(),
                };
                self.0.add_relocation(id, relocation)?;
            }
        }
        Ok(())
    }

    pub(crate) fn write(&self) -> Result<Vec<u8>, Fault> {
        Ok(self.0.write()?)
    }
}
