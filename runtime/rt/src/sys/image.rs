//! The running program as an ELF image: its program headers in memory and its file.

use super::payload::REMEDY;
use llmc_abi::payload::{ALIGN, HEADER_BYTES};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// `Elf64_Ehdr`'s size, and the offsets in it that matter here.
const EHDR_BYTES: usize = 64;
const E_PHOFF: usize = 32;
const E_SHOFF: usize = 40;
const E_PHNUM: usize = 56;
const E_SHNUM: usize = 60;
/// `Elf64_Shdr`'s size.
const SHDR_BYTES: u64 = 64;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// The program headers of the process and where it was loaded.
pub(super) struct Image {
    headers: &'static [libc::Elf64_Phdr],
    base: u64,
}

impl Image {
    /// The image of this process, from the auxiliary vector.
    pub(super) fn of_process() -> Result<Image, String> {
        // SAFETY: getauxval only looks values up.
        let (at, size, count) = unsafe {
            (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHENT), libc::getauxval(libc::AT_PHNUM))
        };
        if at == 0 || size as usize != size_of::<libc::Elf64_Phdr>() {
            return Err("the system does not tell where the program headers lie".into());
        }
        // SAFETY: the kernel mapped that many headers of that size there, for the process's life.
        let headers = unsafe { std::slice::from_raw_parts(at as *const libc::Elf64_Phdr, count as usize) };
        let own = headers.iter().find(|h| h.p_type == libc::PT_PHDR);
        let own = own.ok_or_else(|| format!("the program has no PT_PHDR; {REMEDY}"))?;
        Ok(Image { headers, base: at.wrapping_sub(own.p_vaddr) })
    }

    fn loads(&self) -> impl DoubleEndedIterator<Item = &'static libc::Elf64_Phdr> {
        self.headers.iter().filter(|h| h.p_type == libc::PT_LOAD)
    }

    fn payload_header(&self) -> Result<&'static libc::Elf64_Phdr, String> {
        let sound = |h: &&libc::Elf64_Phdr| {
            h.p_flags == libc::PF_R
                && h.p_align == ALIGN
                && h.p_filesz == h.p_memsz
                && h.p_filesz >= HEADER_BYTES
                && h.p_vaddr.is_multiple_of(ALIGN)
        };
        self.loads().next_back().filter(sound).ok_or_else(|| format!("this program carries no model; {REMEDY}"))
    }

    /// The payload's bytes in memory. Reading past the end of a truncated file would be fatal, so
    /// [`Image::check_length`] comes first.
    pub(super) fn payload(&self) -> Result<&'static [u8], String> {
        let header = self.payload_header()?;
        let at = self.base.wrapping_add(header.p_vaddr) as *const u8;
        // SAFETY: the kernel mapped the segment there, readable, for the process's life.
        Ok(unsafe { std::slice::from_raw_parts(at, header.p_filesz as usize) })
    }

    /// The payload's range in the file.
    pub(super) fn payload_range(&self) -> Result<Range<u64>, String> {
        let header = self.payload_header()?;
        Ok(header.p_offset..end_of(header)?)
    }

    /// The file's ranges that the code checksum covers.
    pub(super) fn code_ranges(&self) -> Result<Vec<Range<u64>>, String> {
        let file = self.open()?;
        let mut ehdr = [0; EHDR_BYTES];
        file.file.read_exact_at(&mut ehdr, 0).map_err(|e| file.error(&e))?;
        let headers = u64::from(half(&ehdr, E_PHNUM)) * size_of::<libc::Elf64_Phdr>() as u64;
        let end = word(&ehdr, E_PHOFF).saturating_add(headers);
        let payload = self.payload_header()?;
        let loads = self.loads().filter(|h| !std::ptr::eq(*h, payload));
        let loads: Vec<_> = loads.map(|h| Ok(h.p_offset..end_of(h)?)).collect::<Result<_, String>>()?;
        Ok(llmc_abi::payload::code_ranges(&loads, end))
    }

    /// Checks that the file is as long as its headers say. Says nothing where the system does not
    /// let a program see its own file.
    pub(super) fn check_length(&self) -> Result<(), String> {
        let Ok(file) = self.open() else { return Ok(()) };
        let mut ehdr = [0; EHDR_BYTES];
        file.file.read_exact_at(&mut ehdr, 0).map_err(|e| file.error(&e))?;
        let sections = u64::from(half(&ehdr, E_SHNUM)) * SHDR_BYTES;
        let mut want = word(&ehdr, E_SHOFF).saturating_add(sections);
        for load in self.loads() {
            want = want.max(end_of(load)?);
        }
        if file.len < want {
            return Err(format!("this file is truncated: {} bytes of at least {want}; {REMEDY}", file.len));
        }
        Ok(())
    }

    /// Opens the program's own file.
    pub(super) fn open(&self) -> Result<File, String> {
        const PATH: &str = "/proc/self/exe";
        let error = |e: std::io::Error| format!("cannot read {PATH}, the program's own file: {e}; is /proc mounted?");
        let file = std::fs::File::open(PATH).map_err(error)?;
        let len = file.metadata().map_err(error)?.len();
        Ok(File { file, len })
    }
}

/// The program's own file.
pub(super) struct File {
    file: std::fs::File,
    len: u64,
}

impl File {
    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Hands the bytes of `ranges` to `take`, in order and in chunks.
    pub(super) fn read(&self, ranges: &[Range<u64>], take: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let mut buffer = vec![0; CHUNK];
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let chunk = &mut buffer[..(range.end - at).min(CHUNK as u64) as usize];
                self.file.read_exact_at(chunk, at).map_err(|e| self.error(&e))?;
                take(chunk);
                at += chunk.len() as u64;
            }
        }
        Ok(())
    }

    fn error(&self, e: &std::io::Error) -> String {
        format!("cannot read the program's own file: {e}; {REMEDY}")
    }
}

fn end_of(header: &libc::Elf64_Phdr) -> Result<u64, String> {
    let end = header.p_offset.checked_add(header.p_filesz);
    end.ok_or_else(|| format!("a program header is damaged; {REMEDY}"))
}

fn word(bytes: &[u8; EHDR_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn half(bytes: &[u8; EHDR_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
