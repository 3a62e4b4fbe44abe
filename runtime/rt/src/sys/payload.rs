//! The payload of the running artifact: the last segment of its own program, mapped by the kernel.
//!
//! What is read at start (header, manifest, tokenizer) is checked at start. [`Payload::verify`]
//! checks every byte of the file, through the file and not the mapping, so that memory stays flat.

use super::image::Image;
use llmc_abi::payload::{ALIGN, HEADER_BYTES, Header, MAGIC, Section, SectionKind};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What to do about a damaged file.
pub(super) const REMEDY: &str = "copy it again or compile it again";

/// A payload whose header, manifest and tokenizer are sound.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    bytes: &'static [u8],
    header: Header,
}

/// The payload of the running program.
///
/// # Errors
///
/// The program is no artifact, its file is truncated, or what is needed at start is damaged.
pub fn payload() -> Result<Payload, String> {
    let image = Image::of_process()?;
    image.check_length()?;
    Payload::parse(image.payload()?)
}

impl Payload {
    /// Checks the header of a payload, where its sections lie, and the bytes of the manifest and
    /// the tokenizer.
    ///
    /// # Errors
    ///
    /// Names what differs from what was written.
    pub fn parse(bytes: &'static [u8]) -> Result<Payload, String> {
        let header = parse_header(bytes)?;
        let payload = Payload { bytes, header };
        payload.sections().try_for_each(|s| check_bounds(s, header.len))?;
        if payload.section(SectionKind::Manifest).is_none() {
            return Err(format!("this artifact has no manifest; {REMEDY}"));
        }
        for kind in [SectionKind::Manifest, SectionKind::Tokenizer] {
            if let (Some(section), Some(bytes)) = (payload.find(kind), payload.section(kind)) {
                check_sum(name(section.kind), section.checksum, xxh3_64(bytes))?;
            }
        }
        Ok(payload)
    }

    /// The bytes of a section, or `None` where the artifact has no such section.
    pub fn section(&self, kind: SectionKind) -> Option<&'static [u8]> {
        let section = self.find(kind)?;
        self.bytes.get(section.offset as usize..(section.offset + section.len) as usize)
    }

    /// Checks every byte of the artifact's file.
    ///
    /// # Errors
    ///
    /// Names the part that differs from what was written.
    pub fn verify(&self) -> Result<(), String> {
        self.verify_with(&mut |_, _| ())
    }

    /// As [`Payload::verify`], and tells `progress` the bytes done and the bytes in all.
    ///
    /// # Errors
    ///
    /// As [`Payload::verify`].
    pub fn verify_with(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), String> {
        let image = Image::of_process()?;
        image.check_length()?;
        let file = image.open()?;
        let at = image.payload_range()?;
        let total = file.len();
        let mut done = 0;
        let mut hash = |ranges: &[std::ops::Range<u64>]| -> Result<u64, String> {
            let mut hasher = Xxh3::new();
            file.read(ranges, &mut |bytes| {
                hasher.update(bytes);
                done += bytes.len() as u64;
                progress(done, total);
            })?;
            Ok(hasher.digest())
        };
        let code = image.code_ranges()?;
        check_sum("code's bytes", self.header.code_checksum, hash(&code)?)?;
        if total == self.header.file_len {
            let rest = llmc_abi::payload::rest_ranges(&code, at.clone(), total);
            check_sum("ELF headers or symbols", self.header.rest_checksum, hash(&rest)?)?;
        }
        for section in self.sections() {
            let start = at.start + section.offset;
            let range = start..start + section.len;
            check_sum(name(section.kind), section.checksum, hash(std::slice::from_ref(&range))?)?;
        }
        self.check_padding(&file, at.start)
    }

    /// What lies between the sections, and behind the header's fields, must be zero.
    fn check_padding(&self, file: &super::image::File, start: u64) -> Result<(), String> {
        let used = |s: &Section| s.offset..s.offset + s.len;
        let fields = 0..Header::BYTES as u64;
        let covered: Vec<_> = [fields].into_iter().chain(self.sections().map(used)).collect();
        let end = self.header.len;
        let gaps = llmc_abi::payload::rest_ranges(&covered, end..end, end);
        let gaps: Vec<_> = gaps.iter().map(|g| start + g.start..start + g.end).collect();
        let mut zero = true;
        file.read(&gaps, &mut |bytes| zero &= bytes.iter().all(|&b| b == 0))?;
        if zero { Ok(()) } else { Err(format!("the payload's padding is damaged; {REMEDY}")) }
    }

    fn sections(&self) -> impl Iterator<Item = &Section> {
        self.header.sections.iter().take(self.header.n_sections as usize)
    }

    fn find(&self, kind: SectionKind) -> Option<&Section> {
        self.sections().find(|s| s.kind == kind as u32)
    }
}

fn parse_header(bytes: &[u8]) -> Result<Header, String> {
    let Some(raw) = bytes.first_chunk::<{ Header::BYTES }>() else {
        return Err(format!("the payload has {} bytes, too few for a header; {REMEDY}", bytes.len()));
    };
    let header = Header::from_bytes(raw);
    if header.magic != MAGIC {
        return Err(format!("the payload does not begin with LLMCPAY1; {REMEDY}"));
    }
    let plain = Header { header_checksum: 0, ..header };
    check_sum("bytes of the payload's header", header.header_checksum, xxh3_64(&plain.to_bytes()))?;
    if header.len != bytes.len() as u64 {
        return Err(format!("the payload has {} bytes, its header says {}; {REMEDY}", bytes.len(), header.len));
    }
    if header.n_sections > header.sections.len() as u64 {
        return Err(format!("the payload's header counts {} sections; {REMEDY}", header.n_sections));
    }
    Ok(header)
}

fn check_bounds(section: &Section, len: u64) -> Result<(), String> {
    let align = if section.kind == SectionKind::Weights as u32 { ALIGN } else { HEADER_BYTES };
    let end = section.offset.checked_add(section.len);
    let inside = section.offset >= HEADER_BYTES && end.is_some_and(|end| end <= len);
    if inside && section.offset.is_multiple_of(align) {
        return Ok(());
    }
    Err(format!("the {} lie outside the payload; {REMEDY}", name(section.kind)))
}

fn check_sum(what: &str, want: u64, have: u64) -> Result<(), String> {
    if want == have {
        return Ok(());
    }
    Err(format!("the {what} differ from what was compiled (XXH3 {have:016x}, expected {want:016x}); {REMEDY}"))
}

fn name(kind: u32) -> &'static str {
    match kind {
        1 => "manifest's bytes",
        2 => "tokenizer's bytes",
        3 => "weights",
        _ => "bytes of an unknown section",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let manifest = b"{\"version\":1}";
        let section = Section {
            kind: SectionKind::Manifest as u32,
            reserved: 0,
            offset: HEADER_BYTES,
            len: manifest.len() as u64,
            checksum: xxh3_64(manifest),
        };
        let mut sections = [Section { kind: 0, reserved: 0, offset: 0, len: 0, checksum: 0 }; 8];
        sections[0] = section;
        let len = HEADER_BYTES + manifest.len() as u64;
        let (code_checksum, rest_checksum) = (1, 2);
        let mut header = Header {
            magic: MAGIC,
            len,
            code_checksum,
            header_checksum: 0,
            n_sections: 1,
            sections,
            file_len: 3,
            rest_checksum,
        };
        header.header_checksum = xxh3_64(&header.to_bytes());
        let mut bytes = header.to_bytes().to_vec();
        bytes.resize(HEADER_BYTES as usize, 0);
        bytes.extend(manifest);
        bytes
    }

    #[test]
    fn a_sound_payload_gives_its_sections() {
        let payload = Payload::parse(sample().leak()).expect("sound");
        assert_eq!(payload.section(SectionKind::Manifest), Some(&b"{\"version\":1}"[..]));
        assert_eq!(payload.section(SectionKind::Tokenizer), None);
    }

    #[test]
    fn every_flip_and_every_truncation_is_found() {
        let sound = sample();
        let read = |i: usize| i < Header::BYTES || i >= HEADER_BYTES as usize;
        for byte in (0..sound.len()).filter(|&i| read(i)) {
            let mut bytes = sound.clone();
            bytes[byte] ^= 1 << (byte % 8);
            assert!(Payload::parse(bytes.leak()).is_err(), "flip in byte {byte}");
        }
        for len in 0..sound.len() {
            assert!(Payload::parse(sound[..len].to_vec().leak()).is_err(), "cut to {len}");
        }
    }

    /// Mutated headers whose own checksum is right again, so that every field is believed.
    #[test]
    fn ten_thousand_false_headers_do_no_harm() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let sound = sample();
        for _ in 0..10_000 {
            let mut bytes = sound.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % Header::BYTES;
                bytes[at] = random() as u8;
            }
            if let Some(mut header) = bytes.first_chunk().map(Header::from_bytes) {
                header.header_checksum = 0;
                header.header_checksum = xxh3_64(&header.to_bytes());
                bytes[..Header::BYTES].copy_from_slice(&header.to_bytes());
            }
            if let Ok(payload) = Payload::parse(bytes.leak()) {
                for kind in [SectionKind::Manifest, SectionKind::Tokenizer, SectionKind::Weights] {
                    let sum: u64 = payload.section(kind).unwrap_or(b"").iter().map(|b| u64::from(*b)).sum();
                    assert!(sum <= 255 * sound.len() as u64);
                }
            }
        }
    }

    #[test]
    fn another_program_is_no_artifact() {
        assert!(payload().is_err());
    }
}
