//! Machine code: a relocatable ELF object, placed in executable memory.
//!
//! The loader is the whole link step: it places sections, resolves relocations inside the object and looks up symbols.
//! Kernels call nothing, so there is nothing outside to link with.

mod layout;
mod relocate;

use crate::platform::code::Sealed;
use crate::platform::memory::{Writable, page_size};
use ::object::read::elf::ElfFile64;
use layout::Layout;
use rwkvc_abi::KernelFn;
use std::collections::HashMap;

/// Why an object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The bytes are not an ELF object, or its tables are damaged.
    #[error("the code is not a valid ELF object: {0}")]
    Malformed(#[from] ::object::read::Error),
    /// The object is for another CPU.
    #[error("the code is for {found}, but this machine is {expected}")]
    Architecture {
        /// The CPU of the object.
        found: String,
        /// The CPU of this machine.
        expected: &'static str,
    },
    /// A section has a property that a kernel never needs.
    #[error("section `{section}` of the code {reason}")]
    Section {
        /// Its name.
        section: String,
        /// What is the matter.
        reason: String,
    },
    /// A relocation is of an unknown kind, points outside, or does not fit.
    #[error("relocation of type {kind} at {section}+{offset:#x}: {reason}")]
    Relocation {
        /// The ELF relocation type.
        kind: u32,
        /// The section whose bytes it changes.
        section: String,
        /// Where in the section.
        offset: u64,
        /// What is the matter.
        reason: String,
    },
    /// The code is larger than any real one.
    #[error("the code needs {found} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Bytes needed.
        found: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// The operating system refused executable memory.
    #[error("no executable memory for the code: {0}")]
    Memory(#[from] std::io::Error),
}

/// Code and constants of an object in executable memory; unmapped when dropped.
pub struct Code {
    memory: Sealed,
    /// Byte offsets of the global functions in the executable part.
    kernels: HashMap<String, usize>,
}

impl Code {
    /// Loads a relocatable ELF object for this machine.
    ///
    /// # Errors
    /// If the object is damaged, for another CPU, refers to symbols outside of it, or has writable data.
    pub fn load(bytes: &[u8]) -> Result<Self, ObjectError> {
        // The reader wants aligned headers; a copy in `u64`s has them wherever the bytes come from.
        let mut aligned = vec![0u64; bytes.len().div_ceil(8)];
        let aligned = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut aligned)[..bytes.len()];
        aligned.copy_from_slice(bytes);
        let file = ElfFile64::<::object::Endianness>::parse(&*aligned)?;
        let machine = relocate::Machine::of(&file)?;
        machine.check_host()?;
        let layout = Layout::of(&file, page_size())?;
        let mut memory = Writable::new(layout.len)?;
        let base = memory.address();
        layout.copy_into(memory.bytes_mut());
        relocate::apply(machine, &file, &layout, base, memory.bytes_mut())?;
        let kernels = layout.functions(&file)?;
        Ok(Code {
            memory: memory.seal(layout.code_len)?,
            kernels,
        })
    }

    /// The kernel with a symbol name.
    pub fn kernel(&self, symbol: &str) -> Option<KernelFn> {
        let address = self.memory.at(*self.kernels.get(symbol)?);
        // SAFETY: `kernels` has only function symbols of the executable part. That they have this signature is the
        // contract of the object's producer, which the caller of the (unsafe) function vouches for.
        Some(unsafe { std::mem::transmute::<*const u8, KernelFn>(address) })
    }

    /// The names of all kernels, in no particular order.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code")
            .field("kernels", &self.kernels.len())
            .finish_non_exhaustive()
    }
}

/// The name of this machine's CPU, as in [`rwkvc_abi::TargetInfo::arch`].
pub(crate) const HOST_ARCH: &str = std::env::consts::ARCH;

#[cfg(test)]
mod tests;
