//! The payload: header, manifest, tokenizer and weights, streamed into the hole of an [`Image`].
//!
//! Weights are written once, in order, and hashed on the way, so memory does not grow with them.

use crate::error::{Error, Result};
use crate::image::Image;
use crate::output::Output;
use llmc_abi::payload::{ALIGN, HEADER_BYTES, Header, MAGIC, Section, SectionKind, rest_ranges};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// What goes into an artifact beside its code.
pub trait PayloadSource {
    /// [`llmc_abi::Manifest`] as JSON.
    fn manifest(&self) -> &[u8];

    /// Tables of [`llmc_abi::tokenizer`], or `None` where the model has no tokenizer.
    fn tokenizer(&self) -> Option<&[u8]>;

    /// Code for GPUs ([`llmc_abi::device`]), or `None` where there is none.
    fn device(&self) -> Option<&[u8]>;

    /// Bytes of the weights.
    fn weights_len(&self) -> u64;

    /// Writes the weights: exactly [`PayloadSource::weights_len`] bytes, in order.
    ///
    /// # Errors
    ///
    /// Whatever the source meets; errors of `to` may be passed on as they are.
    fn write_weights(
        &mut self,
        to: &mut dyn Write,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// The sections of a payload and its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    sections: Vec<Section>,
    /// Bytes of the whole payload.
    pub(crate) len: u64,
}

impl Layout {
    /// Places the sections of `source`; weights are not hashed yet.
    pub(crate) fn new(source: &dyn PayloadSource) -> Result<Layout> {
        let mut layout = Layout { sections: Vec::new(), len: HEADER_BYTES };
        layout.push(SectionKind::Manifest, source.manifest().len() as u64, xxh3_64(source.manifest()));
        if let Some(tokenizer) = source.tokenizer() {
            layout.push(SectionKind::Tokenizer, tokenizer.len() as u64, xxh3_64(tokenizer));
        }
        if let Some(device) = source.device() {
            layout.push(SectionKind::Device, device.len() as u64, xxh3_64(device));
        }
        let room = i64::MAX as u64 - layout.len - ALIGN;
        if source.weights_len() > room {
            return Err(Error::Image { what: "has no room for weights of this size".into() });
        }
        layout.push(SectionKind::Weights, source.weights_len(), 0);
        Ok(layout)
    }

    fn push(&mut self, kind: SectionKind, len: u64, checksum: u64) {
        let align = if kind == SectionKind::Weights { ALIGN } else { HEADER_BYTES };
        let offset = self.len.next_multiple_of(align);
        self.sections.push(Section { kind: kind as u32, reserved: 0, offset, len, checksum });
        self.len = offset + len;
    }

    fn find(&mut self, kind: SectionKind) -> &mut Section {
        let found = self.sections.iter_mut().find(|s| s.kind == kind as u32);
        found.expect("only sections that new() has placed are asked for")
    }
}

/// Writes the whole artifact: `image` with the payload of `source` in its hole. The file behind
/// `output` must be fresh, so that what is not written reads as zero.
pub(crate) fn write(output: &Output, image: &Image, mut layout: Layout, source: &mut dyn PayloadSource) -> Result<()> {
    output.allocate(image.file_len())?;
    output.write_at(&image.head, 0)?;
    output.write_at(&image.tail, image.payload.end)?;
    let start = image.payload.start;
    output.write_at(source.manifest(), start + layout.find(SectionKind::Manifest).offset)?;
    if let Some(tokenizer) = source.tokenizer() {
        output.write_at(tokenizer, start + layout.find(SectionKind::Tokenizer).offset)?;
    }
    if let Some(device) = source.device() {
        output.write_at(device, start + layout.find(SectionKind::Device).offset)?;
    }
    let weights = layout.find(SectionKind::Weights);
    weights.checksum = write_weights(output, start + weights.offset, source)?;
    let header = header(output, image, &layout)?;
    output.write_at(&header.to_bytes(), start)
}

fn header(output: &Output, image: &Image, layout: &Layout) -> Result<Header> {
    let rest = rest_ranges(&image.code, image.payload.clone(), image.file_len());
    let none = Section { kind: 0, reserved: 0, offset: 0, len: 0, checksum: 0 };
    let mut header = Header {
        magic: MAGIC,
        len: layout.len,
        code_checksum: checksum(output, &image.code)?,
        header_checksum: 0,
        n_sections: layout.sections.len() as u64,
        sections: std::array::from_fn(|i| layout.sections.get(i).copied().unwrap_or(none)),
        file_len: image.file_len(),
        rest_checksum: checksum(output, &rest)?,
    };
    header.header_checksum = xxh3_64(&header.to_bytes());
    Ok(header)
}

/// XXH3-64 of ranges of the file, one after another.
fn checksum(output: &Output, ranges: &[Range<u64>]) -> Result<u64> {
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; BUFFER];
    for range in ranges {
        for at in range.clone().step_by(BUFFER) {
            let chunk = &mut buffer[..(range.end - at).min(BUFFER as u64) as usize];
            output.read_at(chunk, at)?;
            hasher.update(chunk);
        }
    }
    Ok(hasher.digest())
}

/// Streams the weights to `at` and returns their checksum.
fn write_weights(output: &Output, at: u64, source: &mut dyn PayloadSource) -> Result<u64> {
    let announced = source.weights_len();
    let sink = Sink { output, at, announced, written: 0, hasher: Box::new(Xxh3::new()), failure: None };
    let mut buffered = BufWriter::with_capacity(BUFFER, sink);
    let result = source.write_weights(&mut buffered).and_then(|()| Ok(buffered.flush()?));
    let (sink, _) = buffered.into_parts();
    match (sink.failure, result) {
        // The sink's own error names the file; the source saw a copy of it.
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(Error::Source(error)),
        (None, Ok(())) if sink.written != announced => Err(Error::WeightsLength { announced, written: sink.written }),
        (None, Ok(())) => Ok(sink.hasher.digest()),
    }
}

/// Hashes what passes through it to its place in the file.
struct Sink<'a> {
    output: &'a Output,
    at: u64,
    announced: u64,
    written: u64,
    hasher: Box<Xxh3>,
    failure: Option<Error>,
}

impl Sink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.written + bytes.len() as u64;
        if written > self.announced {
            return Err(Error::WeightsLength { announced: self.announced, written });
        }
        self.output.write_at(bytes, self.at + self.written)?;
        self.hasher.update(bytes);
        self.written = written;
        Ok(())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map(|()| bytes.len()).map_err(|error| {
            let copy = io::Error::other(error.to_string());
            self.failure.get_or_insert(error);
            copy
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
