//! The step after linking: room for the payload as the last segment of the linked file.
//!
//! The program header of the placeholder note becomes a PT_LOAD behind all others, read-only and
//! aligned to 2 MiB in file and memory. The section headers, with one more that covers the payload
//! (without it `strip` would drop the bytes), and their names move behind the payload. Nothing else
//! moves, so the payload is written in place.

use crate::error::{Error, Result};
use crate::table::NOTE_SECTION;
use llmc_abi::payload::{ALIGN, SECTION_NAME, code_ranges};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::pod::{bytes_of, bytes_of_slice};
use object::read::elf::FileHeader as _;
use object::{U16, U32, U64};
use std::ops::Range;

/// A linked file with a hole where the payload goes.
#[derive(Debug)]
pub(crate) struct Image {
    /// The file's bytes before the payload; zeros follow up to it.
    pub(crate) head: Vec<u8>,
    /// Where the payload goes in the file.
    pub(crate) payload: Range<u64>,
    /// The file's bytes from the payload's end on.
    pub(crate) tail: Vec<u8>,
    /// What the code checksum covers.
    pub(crate) code: Vec<Range<u64>>,
}

impl Image {
    /// Bytes of the whole file.
    pub(crate) fn file_len(&self) -> u64 {
        self.payload.end + self.tail.len() as u64
    }

    /// Makes room for a payload of `payload_len` bytes in the linked file `head`.
    pub(crate) fn new(mut head: Vec<u8>, payload_len: u64) -> Result<Image> {
        let mut elf = Elf::parse(&head)?;
        elf.check()?;
        let offset = (head.len() as u64).next_multiple_of(ALIGN);
        let end = offset.checked_add(payload_len).ok_or_else(|| image("has no room for a payload of this size"))?;
        let address = elf.loads().map(|p| p.p_vaddr.get(LE) + p.p_memsz.get(LE)).max().unwrap_or(0);
        let address = address.next_multiple_of(ALIGN);
        let code = elf.code();
        elf.clear_old_section_headers(&mut head)?;
        elf.replace_note(address, offset, payload_len)?;
        let names_len = elf.add_section(address, offset, payload_len);
        let tail = elf.tail(end, names_len);
        elf.write_headers(&mut head);
        Ok(Image { head, payload: offset..end, tail, code })
    }
}

/// The parts of a linked file that change.
struct Elf {
    header: FileHeader64<LE>,
    segments: Vec<ProgramHeader64<LE>>,
    sections: Vec<SectionHeader64<LE>>,
    /// `.shstrtab`'s bytes.
    names: Vec<u8>,
}

impl Elf {
    fn parse(bytes: &[u8]) -> Result<Elf> {
        let broken = |e: object::read::Error| image(&format!("cannot be read: {e}"));
        let header = FileHeader64::<LE>::parse(bytes).map_err(broken)?;
        let sections = header.section_headers(LE, bytes).map_err(broken)?;
        let strings = usize::from(header.e_shstrndx.get(LE));
        let names = sections.get(strings).ok_or_else(|| image("has no section names"))?;
        let at = names.sh_offset.get(LE) as usize;
        let names = at.checked_add(names.sh_size.get(LE) as usize).and_then(|end| bytes.get(at..end));
        Ok(Elf {
            header: *header,
            segments: header.program_headers(LE, bytes).map_err(broken)?.to_vec(),
            sections: sections.to_vec(),
            names: names.ok_or_else(|| image("has no section names"))?.to_vec(),
        })
    }

    /// What every artifact promises, whichever linker made it.
    fn check(&self) -> Result<()> {
        let has = |kind: u32| self.segments.iter().any(|p| p.p_type.get(LE) == kind);
        let flags = |p: &ProgramHeader64<LE>| p.p_flags.get(LE);
        let stack = self.segments.iter().find(|p| p.p_type.get(LE) == elf::PT_GNU_STACK);
        let demands = [
            (self.header.e_type.get(LE) == elf::ET_DYN, "is not position-independent"),
            (self.header.e_machine.get(LE) == elf::EM_X86_64, "is not for x86-64"),
            (has(elf::PT_PHDR), "does not map its program headers"),
            (has(elf::PT_INTERP), "names no loader"),
            (has(elf::PT_GNU_RELRO), "has no RELRO segment"),
            (stack.is_some_and(|p| flags(p) & elf::PF_X == 0), "asks for an executable stack"),
            (
                self.loads().all(|p| flags(p) & (elf::PF_W | elf::PF_X) != elf::PF_W | elf::PF_X),
                "has a segment that is writable and executable",
            ),
        ];
        demands.iter().try_for_each(|&(met, what)| if met { Ok(()) } else { Err(image(what)) })
    }

    fn loads(&self) -> impl Iterator<Item = &ProgramHeader64<LE>> {
        self.segments.iter().filter(|p| p.p_type.get(LE) == elf::PT_LOAD)
    }

    fn code(&self) -> Vec<Range<u64>> {
        let range = |p: &ProgramHeader64<LE>| p.p_offset.get(LE)..p.p_offset.get(LE) + p.p_filesz.get(LE);
        let loads: Vec<_> = self.loads().map(range).collect();
        let headers = self.segments.len() * size_of::<ProgramHeader64<LE>>();
        code_ranges(&loads, self.header.e_phoff.get(LE) + headers as u64)
    }

    /// Zeroes the section headers where the linker put them. They may lie within the first segment,
    /// where `strip` would zero them, and the code checksum would no longer hold.
    fn clear_old_section_headers(&self, bytes: &mut [u8]) -> Result<()> {
        let at = self.header.e_shoff.get(LE) as usize;
        let len = self.sections.len() * size_of::<SectionHeader64<LE>>();
        let old = at.checked_add(len).and_then(|end| bytes.get_mut(at..end));
        old.ok_or_else(|| image("is shorter than its headers say"))?.fill(0);
        Ok(())
    }

    fn section_name(&self, section: &SectionHeader64<LE>) -> &[u8] {
        let name = self.names.get(section.sh_name.get(LE) as usize..).unwrap_or_default();
        name.split(|&b| b == 0).next().unwrap_or_default()
    }

    /// The note's program header becomes the payload's; PT_LOAD entries stay in ascending order.
    fn replace_note(&mut self, address: u64, offset: u64, len: u64) -> Result<()> {
        let note = self.sections.iter().find(|s| self.section_name(s) == NOTE_SECTION.as_bytes());
        let at = note.map(|s| s.sh_addr.get(LE)).ok_or_else(|| image("lacks the section .note.llmc"))?;
        let covers = |p: &ProgramHeader64<LE>| {
            let start = p.p_vaddr.get(LE);
            p.p_type.get(LE) == elf::PT_NOTE && (start..start + p.p_memsz.get(LE)).contains(&at)
        };
        let spare = self.segments.iter().position(covers).ok_or_else(|| image("has no note segment"))?;
        self.segments.remove(spare);
        let last = self.segments.iter().rposition(|p| p.p_type.get(LE) == elf::PT_LOAD);
        let last = last.ok_or_else(|| image("has nothing to load"))?;
        let payload = ProgramHeader64 {
            p_type: U32::new(LE, elf::PT_LOAD),
            p_flags: U32::new(LE, elf::PF_R),
            p_offset: U64::new(LE, offset),
            p_vaddr: U64::new(LE, address),
            p_paddr: U64::new(LE, address),
            p_filesz: U64::new(LE, len),
            p_memsz: U64::new(LE, len),
            p_align: U64::new(LE, ALIGN),
        };
        self.segments.insert(last + 1, payload);
        Ok(())
    }

    /// Adds the payload's section and its name; returns the bytes of all names.
    fn add_section(&mut self, address: u64, offset: u64, len: u64) -> u64 {
        let name = self.names.len() as u32;
        self.names.extend(SECTION_NAME.bytes().chain([0]));
        self.sections.push(SectionHeader64 {
            sh_name: U32::new(LE, name),
            sh_type: U32::new(LE, elf::SHT_PROGBITS),
            sh_flags: U64::new(LE, u64::from(elf::SHF_ALLOC)),
            sh_addr: U64::new(LE, address),
            sh_offset: U64::new(LE, offset),
            sh_size: U64::new(LE, len),
            sh_link: U32::new(LE, 0),
            sh_info: U32::new(LE, 0),
            sh_addralign: U64::new(LE, ALIGN),
            sh_entsize: U64::new(LE, 0),
        });
        self.names.len() as u64
    }

    /// The names and section headers, as they lie from `at` on.
    fn tail(&mut self, at: u64, names_len: u64) -> Vec<u8> {
        let strings = &mut self.sections[usize::from(self.header.e_shstrndx.get(LE))];
        strings.sh_offset = U64::new(LE, at);
        strings.sh_size = U64::new(LE, names_len);
        let headers = (at + names_len).next_multiple_of(8);
        self.header.e_shoff = U64::new(LE, headers);
        self.header.e_shnum = U16::new(LE, self.sections.len() as u16);
        let mut tail = self.names.clone();
        tail.resize((headers - at) as usize, 0);
        tail.extend(bytes_of_slice(&self.sections));
        tail
    }

    fn write_headers(&self, bytes: &mut [u8]) {
        let header = bytes_of(&self.header);
        bytes[..header.len()].copy_from_slice(header);
        let segments = bytes_of_slice(&self.segments);
        let at = self.header.e_phoff.get(LE) as usize;
        bytes[at..at + segments.len()].copy_from_slice(segments);
    }
}

fn image(what: &str) -> Error {
    Error::Image { what: what.to_owned() }
}
