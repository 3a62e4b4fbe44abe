//! Buffers far apart in a 64-bit address space, with every access checked.

use super::error::{Addr, Fault};
use super::race::Shadow;

/// Bits of an address inside its buffer's space; the buffer's number stands above.
const SPACE_BITS: u32 = 40;

/// Alignment of every buffer, exactly: none is aligned to more.
pub(super) const ALIGN: u64 = 64;

struct Buffer {
    data: Vec<u8>,
    /// Which bytes were written, if not all are from the start.
    written: Option<Vec<bool>>,
    readonly: bool,
    shadow: Option<Shadow>,
}

/// Who accesses memory and when.
#[derive(Clone, Copy)]
pub(super) struct Access {
    pub worker: u32,
    /// Number of barriers passed; 0 where there is one worker and no race.
    pub epoch: u32,
}

/// All memory.
#[derive(Default)]
pub(super) struct Memory {
    buffers: Vec<Option<Buffer>>,
}

impl Memory {
    /// A new buffer; without `data` it is `len` bytes not written yet.
    pub fn alloc(&mut self, data: Option<Vec<u8>>, len: usize, readonly: bool) -> Result<Addr, Fault> {
        let number = self.buffers.len() as u64 + 1;
        if number >> (64 - SPACE_BITS) != 0 || len as u64 >= (1 << SPACE_BITS) - ALIGN {
            return Err(Fault::OutOfAddresses);
        }
        let written = if data.is_some() { None } else { Some(vec![false; len]) };
        let data = data.unwrap_or_else(|| vec![0xa5; len]);
        self.buffers.push(Some(Buffer { data, written, readonly, shadow: None }));
        Ok(Addr((number << SPACE_BITS) + ALIGN))
    }

    /// Ends a buffer's life; its address is not used again.
    pub fn free(&mut self, addr: Addr) {
        if let Some((index, _)) = split(addr) {
            self.buffers[index] = None;
        }
    }

    /// Number of buffers ever made.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Forgets all buffers but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.buffers.truncate(len);
    }

    /// Forgets who accessed what.
    pub fn forget_accesses(&mut self) {
        self.buffers.iter_mut().flatten().for_each(|b| b.shadow = None);
    }

    /// All bytes of the buffer that starts at `addr`.
    pub fn buffer(&mut self, addr: Addr) -> Option<&mut Vec<u8>> {
        let (index, offset) = split(addr)?;
        let buffer = self.buffers.get_mut(index)?.as_mut()?;
        (offset == 0).then_some(&mut buffer.data)
    }

    /// Bytes to read.
    pub fn load(&mut self, addr: Addr, len: usize, align: u32, access: Access) -> Result<&[u8], Fault> {
        let (buffer, at) = self.locate(addr, len, align)?;
        if let Some(written) = &buffer.written
            && let Some(i) = written[at..at + len].iter().position(|w| !w)
        {
            return Err(Fault::Uninitialized { addr: Addr(addr.0 + i as u64) });
        }
        if access.epoch > 0 && !buffer.readonly {
            let shadow = buffer.shadow.get_or_insert_with(|| Shadow::new(buffer.data.len()));
            shadow.read(at, len, addr, access)?;
        }
        Ok(&buffer.data[at..at + len])
    }

    /// Bytes to be overwritten, all of them.
    pub fn store(&mut self, addr: Addr, len: usize, align: u32, access: Access) -> Result<&mut [u8], Fault> {
        let (buffer, at) = self.locate(addr, len, align)?;
        if buffer.readonly {
            return Err(Fault::ReadOnly { addr });
        }
        if access.epoch > 0 {
            let shadow = buffer.shadow.get_or_insert_with(|| Shadow::new(buffer.data.len()));
            shadow.write(at, len, addr, access)?;
        }
        if let Some(written) = &mut buffer.written {
            written[at..at + len].fill(true);
        }
        Ok(&mut buffer.data[at..at + len])
    }

    /// The buffer that holds `len` bytes at `addr`, and where in it they start.
    fn locate(&mut self, addr: Addr, len: usize, align: u32) -> Result<(&mut Buffer, usize), Fault> {
        if !addr.0.is_multiple_of(u64::from(align)) {
            return Err(Fault::Misaligned { addr, align });
        }
        let outside = |inside| Fault::OutOfBounds { addr, bytes: len, inside };
        let number = addr.0 >> SPACE_BITS;
        let offset = (addr.0 & ((1 << SPACE_BITS) - 1)).wrapping_sub(ALIGN) as i64;
        let slot = (number as usize).checked_sub(1).and_then(|i| self.buffers.get_mut(i));
        let Some(slot) = slot else { return Err(outside(None)) };
        let Some(buffer) = slot else { return Err(outside(Some("its function has returned".into()))) };
        match usize::try_from(offset) {
            Ok(at) if at + len <= buffer.data.len() => Ok((buffer, at)),
            _ => Err(outside(Some(format!("byte {offset} of a buffer of {} bytes", buffer.data.len())))),
        }
    }
}

/// Index of the buffer and offset in it.
fn split(addr: Addr) -> Option<(usize, u64)> {
    let index = (addr.0 >> SPACE_BITS).checked_sub(1)?;
    Some((index as usize, (addr.0 & ((1 << SPACE_BITS) - 1)).checked_sub(ALIGN)?))
}
