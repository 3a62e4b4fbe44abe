//! Copying much memory to the device, such as weights mapped from a file: threads copy it into
//! page-locked buffers while the device reads those filled before.

use std::ffi::c_void;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use super::event::Event;
use super::gpu::Gpu;
use super::memory::{Buffer, Pinned};
use crate::error::{Error, Result};
use crate::limits;

/// Page-locked buffers and the bytes of each.
const SLOTS: usize = 4;
const SLOT_BYTES: usize = 32 << 20;
/// Bytes that a thread copies at a time.
const PART_BYTES: usize = 4 << 20;
/// Most threads that copy: as many as keep up with the bus.
const MAX_THREADS: usize = 8;
/// Most bytes for which the driver's own copy is used.
const SMALL_BYTES: usize = 4 << 20;

impl Gpu {
    /// Copies `bytes` to the beginning of `to` and waits for it. Pages not yet in memory are read by
    /// several threads.
    ///
    /// # Errors
    ///
    /// Exit code 4 where the host has no room for 128 MiB of page-locked memory, 1 where the device
    /// failed or a thread does not start.
    ///
    /// # Panics
    ///
    /// Where `to` is smaller than `bytes`.
    pub fn upload(&self, to: &Buffer, bytes: &[u8]) -> Result<()> {
        to.range(0, bytes.len());
        if bytes.len() <= SMALL_BYTES {
            return self.upload_small(to, bytes);
        }
        let chunks: Vec<&[u8]> = bytes.chunks(SLOT_BYTES).collect();
        let slot = |_| Ok(Slot { memory: self.pinned(bytes.len().min(SLOT_BYTES))?, sent: self.event()?, unfilled: 0 });
        let mut slots: Vec<Slot> = (0..SLOTS.min(chunks.len())).map(slot).collect::<Result<_>>()?;
        with_copiers(|parts, filled| self.send(to, &chunks, &mut slots, parts, filled))
    }

    fn upload_small(&self, to: &Buffer, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let from = bytes.as_ptr().cast::<c_void>();
        // SAFETY: the source is borrowed until the copy has run; the target was checked to be as large.
        let status =
            unsafe { (self.context.driver.copy_to_device)(to.address(), from, bytes.len(), self.context.stream) };
        self.context.driver.check(status, "copy from the host")?;
        self.synchronize()
    }

    /// Has each chunk filled into a slot and sends it. A chunk is being filled while the one before
    /// is awaited.
    fn send<'a>(
        &self,
        to: &Buffer,
        chunks: &[&'a [u8]],
        slots: &mut [Slot],
        parts: &Sender<Part<'a>>,
        filled: &Receiver<usize>,
    ) -> Result<()> {
        let count = slots.len();
        for i in 0..=chunks.len() {
            if let Some(chunk) = chunks.get(i) {
                slots[i % count].sent.wait()?;
                slots[i % count].fill(i % count, chunk, parts);
            }
            if let Some(previous) = i.checked_sub(1) {
                await_filled(slots, previous % count, filled)?;
                let slot = &slots[previous % count];
                self.copy_in(to, previous * SLOT_BYTES, &slot.memory, 0, chunks[previous].len())?;
                self.record(&slot.sent)?;
            }
        }
        self.synchronize()
    }
}

/// A page-locked buffer on its way: filled part by part, then sent.
struct Slot {
    memory: Pinned,
    /// Happens when the device has read it.
    sent: Event,
    /// Parts still to fill.
    unfilled: usize,
}

/// Bytes to copy into a slot.
struct Part<'a> {
    from: &'a [u8],
    to: *mut u8,
    slot: usize,
}

// SAFETY: parts of a slot do not overlap, and nobody else uses the slot until all have been copied.
unsafe impl Send for Part<'_> {}

impl Slot {
    /// Hands the parts of `chunk` to the copiers.
    fn fill<'a>(&mut self, slot: usize, chunk: &'a [u8], parts: &Sender<Part<'a>>) {
        assert!(chunk.len() <= self.memory.len(), "a chunk larger than its slot");
        for (i, from) in chunk.chunks(PART_BYTES).enumerate() {
            let to = self.memory.base().wrapping_add(i * PART_BYTES);
            // The receiver lives as long as the sender.
            let _ = parts.send(Part { from, to, slot });
            self.unfilled += 1;
        }
    }
}

fn await_filled(slots: &mut [Slot], slot: usize, filled: &Receiver<usize>) -> Result<()> {
    while slots[slot].unfilled > 0 {
        let done = filled.recv().map_err(|_| Error::failed("the threads that copy weights ended early"))?;
        slots[done].unfilled -= 1;
    }
    Ok(())
}

/// Runs `body` while threads copy the parts that it sends; each gives the part's slot back when done.
fn with_copiers<'a>(body: impl FnOnce(&Sender<Part<'a>>, &Receiver<usize>) -> Result<()>) -> Result<()> {
    let (send_part, parts) = channel::<Part<'a>>();
    let (send_filled, filled) = channel();
    let parts = Mutex::new(parts);
    std::thread::scope(|scope| {
        // The threads end when the sender does, which is before the scope waits for them.
        let send_part = send_part;
        for i in 0..limits::cpus().clamp(1, MAX_THREADS) {
            let (parts, send_filled) = (&parts, send_filled.clone());
            let started =
                Builder::new().name(format!("upload-{i}")).spawn_scoped(scope, move || copy(parts, &send_filled));
            if let Err(e) = started {
                return Err(Error::failed(format!("cannot start a thread: {e}; raise the limit (ulimit -u)")));
            }
        }
        drop(send_filled);
        body(&send_part, &filled)
    })
}

/// Copies parts until there will be no more.
fn copy(parts: &Mutex<Receiver<Part<'_>>>, filled: &Sender<usize>) {
    loop {
        let next = parts.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(part) = next else { return };
        // SAFETY: the target has as many bytes, in a slot that lives until all parts are copied and that
        // nobody else touches before.
        unsafe { std::ptr::copy_nonoverlapping(part.from.as_ptr(), part.to, part.from.len()) };
        if filled.send(part.slot).is_err() {
            return;
        }
    }
}
