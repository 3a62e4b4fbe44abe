//! The bytes of loaded code: sections placed one after another, and relocated.

use crate::{Error, Result};
use llmc_abi::step::BARRIER_SYMBOL;
use object::elf;
use object::{File, Object as _, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;

/// Bytes of `jmp *[rip + 0]` and the address it reads.
const STUB: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];
const STUB_BYTES: usize = 16;
/// The address in a stub serves as its entry of the global offset table.
const STUB_ADDRESS: usize = 6;

/// The bytes to be mapped and where things are in them.
#[derive(Default)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    sections: BTreeMap<(usize, usize), usize>,
    pub(crate) symbols: BTreeMap<String, usize>,
}

fn bad(message: impl Into<String>) -> Error {
    Error::Object(message.into())
}

fn broken(e: object::Error) -> Error {
    bad(e.to_string())
}

impl Image {
    fn reserve(&mut self, bytes: u64, align: u64) -> usize {
        let start = self.bytes.len().next_multiple_of(align.max(1) as usize);
        self.bytes.resize(start + bytes as usize, 0);
        start
    }

    /// Copies an object's sections and notes its symbols.
    pub(crate) fn place(&mut self, index: usize, file: &File) -> Result<()> {
        for section in file.sections().filter(in_memory) {
            if writable(&section) {
                return Err(bad(format!("{:?} is writable: compiled code has no state", section.name())));
            }
            let start = self.reserve(section.size(), section.align());
            let data = section.data().map_err(broken)?;
            self.bytes[start..start + data.len()].copy_from_slice(data);
            self.sections.insert((index, section.index().0), start);
        }
        for symbol in file.symbols().filter(|s| s.is_global() && s.is_definition()) {
            let name = symbol.name().map_err(broken)?.to_string();
            let at = self.defined(index, &symbol)?;
            if self.symbols.insert(name.clone(), at).is_some() {
                return Err(bad(format!("{name} is defined twice")));
            }
        }
        Ok(())
    }

    /// Adds a jump to the barrier at this address; where it lies.
    pub(crate) fn barrier(&mut self, address: u64) -> usize {
        let stub = self.reserve(STUB_BYTES as u64, 16);
        self.bytes[stub..stub + STUB.len()].copy_from_slice(&STUB);
        self.bytes[stub + STUB_ADDRESS..][..8].copy_from_slice(&address.to_le_bytes());
        stub
    }

    /// Applies an object's relocations for an image that will lie at `base`.
    pub(crate) fn relocate(&mut self, index: usize, file: &File, stub: usize, base: u64) -> Result<()> {
        for section in file.sections().filter(in_memory) {
            let start = self.sections[&(index, section.index().0)];
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else {
                    return Err(bad(format!("relocation against {:?}", relocation.target())));
                };
                let symbol = file.symbol_by_index(symbol).map_err(broken)?;
                let RelocationFlags::Elf { r_type } = relocation.flags() else { return Err(bad("not ELF")) };
                let target = self.resolve(index, &symbol, stub)?;
                // Only the barrier is reached through the offset table.
                let slot = stub + STUB_ADDRESS;
                let place = start + offset as usize;
                self.apply(r_type, place, (target, slot), relocation.addend(), base)?;
            }
        }
        Ok(())
    }

    fn resolve(&self, index: usize, symbol: &object::Symbol, stub: usize) -> Result<usize> {
        if symbol.section_index().is_some() {
            return self.defined(index, symbol);
        }
        match symbol.name().map_err(broken)? {
            BARRIER_SYMBOL => Ok(stub),
            name => self.symbols.get(name).copied().ok_or_else(|| bad(format!("{name} is undefined"))),
        }
    }

    fn defined(&self, index: usize, symbol: &object::Symbol) -> Result<usize> {
        let section = symbol.section_index().and_then(|s| self.sections.get(&(index, s.0)));
        let section = section.ok_or_else(|| bad(format!("{:?} is in no section", symbol.name())))?;
        Ok(section + symbol.address() as usize)
    }

    fn apply(&mut self, kind: u32, place: usize, (target, slot): (usize, usize), addend: i64, base: u64) -> Result<()> {
        let relative = |to: usize| {
            let distance = to as i64 + addend - place as i64;
            i32::try_from(distance)
                .map_err(|_| bad(format!("a distance of {distance} bytes in {kind}, expected 32 bits")))
        };
        let four = match kind {
            elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => relative(target),
            elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => relative(slot),
            elf::R_X86_64_64 => {
                let address = base.wrapping_add(target as u64).wrapping_add(addend as u64);
                self.bytes[place..place + 8].copy_from_slice(&address.to_le_bytes());
                return Ok(());
            }
            other => return Err(bad(format!("relocation type {other} is not supported"))),
        };
        self.bytes[place..place + 4].copy_from_slice(&four?.to_le_bytes());
        Ok(())
    }
}

fn flags<'a>(section: &impl ObjectSection<'a>) -> u64 {
    match section.flags() {
        object::SectionFlags::Elf { sh_flags } => sh_flags,
        _ => 0,
    }
}

fn in_memory<'a>(section: &impl ObjectSection<'a>) -> bool {
    flags(section) & u64::from(elf::SHF_ALLOC) != 0
}

fn writable<'a>(section: &impl ObjectSection<'a>) -> bool {
    flags(section) & u64::from(elf::SHF_WRITE) != 0
}
