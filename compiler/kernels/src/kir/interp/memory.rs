//! Buffers far apart in a 64-bit address space, with every access checked.

use super::access::Access;
use super::error::{Addr, Fault};
use super::fence::Fences;
use super::race::Shadow;
use super::signal::Signals;

/// Bits of an address inside its buffer's space; the buffer's number stands above.
const SPACE_BITS: u32 = 40;

/// Alignment of buffers, exactly: none is aligned to more.
const ALIGN: u64 = 64;

/// Alignment of memory that the threads of a worker share, exactly.
const SHARED_ALIGN: u64 = 1024;

struct Buffer {
    /// Where in its space it begins.
    base: u64,
    data: Vec<u8>,
    /// Which bytes were written, if not all are from the start.
    written: Option<Vec<bool>>,
    readonly: bool,
    shadow: Option<Shadow>,
    /// Who has written each byte, where fences matter.
    fences: Option<Fences>,
    /// The last run that stored into it.
    stored: u32,
    /// The last run that loaded from it as from a constant.
    constant: u32,
}

/// Bytes in memory and what is promised of them.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub addr: Addr,
    pub len: usize,
    pub align: u32,
}

/// All memory.
#[derive(Default)]
pub(super) struct Memory {
    buffers: Vec<Option<Buffer>>,
    /// Number of the run.
    run: u32,
    /// Signals of all workers.
    pub signals: Signals,
}

impl Memory {
    /// A new buffer; without `data` it is `len` bytes not written yet.
    pub fn alloc(&mut self, data: Option<Vec<u8>>, len: usize, readonly: bool) -> Result<Addr, Fault> {
        self.alloc_at(ALIGN, data, len, readonly)
    }

    /// Memory of `len` bytes, not written yet, that the threads of a worker share.
    pub fn alloc_shared(&mut self, len: usize, fenced: bool) -> Result<Addr, Fault> {
        let addr = self.alloc_at(SHARED_ALIGN, None, len, false)?;
        if fenced && let Some(Some(buffer)) = self.buffers.last_mut() {
            buffer.fences = Some(Fences::new(len));
        }
        Ok(addr)
    }

    /// Products see what this thread has written to its worker's memory.
    pub fn fence(&mut self, access: &Access) {
        let (index, _) = split(access.shared);
        if let Some(Some(Buffer { fences: Some(fences), .. })) = self.buffers.get_mut(index) {
            fences.fence(access);
        }
    }

    /// Bytes that a product reads.
    pub fn load_fenced(&mut self, place: Place, access: &Access) -> Result<&[u8], Fault> {
        let (buffer, at) = self.locate(place)?;
        let Some(fences) = &buffer.fences else {
            return Err(Fault::Operand("columns are not in memory of the worker"));
        };
        fences.check(at, place.len, access)?;
        self.load(place, access)
    }

    fn alloc_at(&mut self, base: u64, data: Option<Vec<u8>>, len: usize, readonly: bool) -> Result<Addr, Fault> {
        let number = self.buffers.len() as u64 + 1;
        if number >> (64 - SPACE_BITS) != 0 || len as u64 >= (1 << SPACE_BITS) - base {
            return Err(Fault::OutOfAddresses);
        }
        let written = if data.is_some() { None } else { Some(vec![false; len]) };
        let data = data.unwrap_or_else(|| vec![0xa5; len]);
        self.buffers.push(Some(Buffer {
            base,
            data,
            written,
            readonly,
            shadow: None,
            fences: None,
            stored: 0,
            constant: 0,
        }));
        Ok(Addr((number << SPACE_BITS) + base))
    }

    /// From here on accesses belong to another run.
    pub fn begin_run(&mut self) {
        self.run = self.run.wrapping_add(1).max(1);
    }

    /// Ends a buffer's life; its address is not used again.
    pub fn free(&mut self, addr: Addr) {
        let (index, _) = split(addr);
        self.buffers[index] = None;
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
        let (index, offset) = split(addr);
        let buffer = self.buffers.get_mut(index)?.as_mut()?;
        (offset == buffer.base).then_some(&mut buffer.data)
    }

    /// Bytes to read.
    #[inline]
    pub fn load(&mut self, place: Place, access: &Access) -> Result<&[u8], Fault> {
        let Place { addr, len, .. } = place;
        let (buffer, at) = self.locate(place)?;
        if let Some(written) = &buffer.written
            && let Some(i) = written[at..at + len].iter().position(|w| !w)
        {
            return Err(Fault::Uninitialized { addr: Addr(addr.0 + i as u64) });
        }
        if access.moment > 0 && !buffer.readonly {
            buffer.shadow().read(at, len, addr, access)?;
        }
        Ok(&buffer.data[at..at + len])
    }

    /// Bytes to read whose buffer nobody writes in this run.
    pub fn load_constant(&mut self, place: Place, access: &Access) -> Result<&[u8], Fault> {
        let run = self.run;
        let (buffer, _) = self.locate(place)?;
        if buffer.stored == run {
            return Err(Fault::Constant { addr: place.addr });
        }
        buffer.constant = run;
        self.load(place, access)
    }

    /// Bytes to be overwritten, all of them.
    #[inline]
    pub fn store(&mut self, place: Place, access: &Access) -> Result<&mut [u8], Fault> {
        let Place { addr, len, .. } = place;
        let (buffer, at) = self.writable(place)?;
        if access.moment > 0 {
            buffer.shadow().write(at, len, addr, access)?;
        }
        if let Some(written) = &mut buffer.written {
            written[at..at + len].fill(true);
        }
        if let Some(fences) = &mut buffer.fences {
            fences.write(at, len, access);
        }
        Ok(&mut buffer.data[at..at + len])
    }

    /// Bytes to be read and overwritten in one step, as others may do at the same time.
    pub fn update(&mut self, place: Place, access: &Access) -> Result<&mut [u8], Fault> {
        let Place { addr, len, .. } = place;
        let (buffer, at) = self.writable(place)?;
        if buffer.written.as_ref().is_some_and(|written| written[at..at + len].contains(&false)) {
            return Err(Fault::Uninitialized { addr });
        }
        if access.moment > 0 {
            buffer.shadow().update(at, len, addr, access)?;
        }
        Ok(&mut buffer.data[at..at + len])
    }

    /// Takes bytes away until they are written again. This counts as a write. The buffer is one that
    /// began without content.
    pub fn poison(&mut self, place: Place, access: &Access) -> Result<(), Fault> {
        self.store(place, access)?;
        let (buffer, at) = self.writable(place)?;
        buffer.written.as_mut().expect("the buffer began without content")[at..at + place.len].fill(false);
        Ok(())
    }

    /// Counts as a read of bytes, whatever they hold.
    pub fn observe(&mut self, place: Place, access: &Access) -> Result<(), Fault> {
        let Place { addr, len, .. } = place;
        let (buffer, at) = self.locate(place)?;
        if access.moment > 0 && !buffer.readonly {
            buffer.shadow().read(at, len, addr, access)?;
        }
        Ok(())
    }

    /// Writes bytes in nobody's name: whoever reads them has waited for them.
    pub fn deliver(&mut self, place: Place, data: &[u8]) -> Result<(), Fault> {
        let (buffer, at) = self.writable(place)?;
        buffer.data[at..at + place.len].copy_from_slice(data);
        if let Some(written) = &mut buffer.written {
            written[at..at + place.len].fill(true);
        }
        if let Some(fences) = &mut buffer.fences {
            fences.copy(at, place.len);
        }
        Ok(())
    }

    /// Whether none of the bytes is written.
    pub fn is_poisoned(&mut self, place: Place) -> Result<bool, Fault> {
        let (buffer, at) = self.locate(place)?;
        Ok(buffer.written.as_ref().is_some_and(|written| !written[at..at + place.len].contains(&true)))
    }

    /// As [`Memory::locate`], about to be written.
    #[inline]
    fn writable(&mut self, place: Place) -> Result<(&mut Buffer, usize), Fault> {
        let run = self.run;
        let (buffer, at) = self.locate(place)?;
        if buffer.readonly {
            return Err(Fault::ReadOnly { addr: place.addr });
        }
        if buffer.constant == run {
            return Err(Fault::Constant { addr: place.addr });
        }
        buffer.stored = run;
        Ok((buffer, at))
    }

    /// The buffer that holds the bytes, and where in it they start.
    #[inline]
    fn locate(&mut self, Place { addr, len, align }: Place) -> Result<(&mut Buffer, usize), Fault> {
        if !addr.0.is_multiple_of(u64::from(align)) {
            return Err(Fault::Misaligned { addr, align });
        }
        let outside = |inside| Fault::OutOfBounds { addr, bytes: len, inside };
        let (index, offset) = split(addr);
        let Some(slot) = self.buffers.get_mut(index) else { return Err(outside(None)) };
        let Some(buffer) = slot else { return Err(outside(Some("its function has returned".into()))) };
        let offset = offset.wrapping_sub(buffer.base) as i64;
        match usize::try_from(offset) {
            Ok(at) if at + len <= buffer.data.len() => Ok((buffer, at)),
            _ => Err(outside(Some(format!("byte {offset} of a buffer of {} bytes", buffer.data.len())))),
        }
    }
}

impl Buffer {
    fn shadow(&mut self) -> &mut Shadow {
        self.shadow.get_or_insert_with(|| Shadow::new(self.data.len()))
    }
}

/// Index of the buffer, out of range where there can be none, and offset in its space.
fn split(addr: Addr) -> (usize, u64) {
    ((addr.0 >> SPACE_BITS).wrapping_sub(1) as usize, addr.0 & ((1 << SPACE_BITS) - 1))
}

/// Whether both addresses are in one buffer's space.
pub(super) fn same_buffer(a: Addr, b: Addr) -> bool {
    split(a).0 == split(b).0
}
