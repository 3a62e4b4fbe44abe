//! The paged KV cache: pages of a fixed size in one reserved range, handed out by a free list, and
//! for each sequence the row of the page table that compiled code follows.
//!
//! The range is reserved whole and committed by the system page by page, as it is written.

mod by_use;

use by_use::Places;
use llmc_abi::manifest::{Keep, KvInfo};

use crate::error::{Error, Result};
use crate::sys::mmap::Mapping;

/// Pages, page table and lengths of every sequence.
pub struct KvCache {
    memory: Mapping,
    table: Mapping,
    page_positions: usize,
    page_bytes: usize,
    places: Places,
    /// Blocks per sequence: the row length of the page table.
    stride: usize,
    sequences: Vec<Sequence>,
    free: Vec<i32>,
}

#[derive(Clone, Default)]
struct Sequence {
    /// Positions held.
    positions: usize,
    blocks: usize,
    /// Pages that were forgotten behind the first ones.
    forgotten: usize,
}

/// Bytes of a cache for `sequences` sequences of `positions` positions, rounded up to whole pages.
/// None where the number passes 64 bits, or pages pass 31.
pub fn bytes(info: &KvInfo, positions: usize, sequences: usize) -> Option<usize> {
    let pages = positions.div_ceil(info.page_positions.max(1)).checked_mul(sequences)?;
    i32::try_from(pages).ok()?;
    pages.checked_mul(info.page_bytes)
}

impl KvCache {
    /// A cache with room for `sequences` sequences of `positions` positions each.
    pub fn new(info: &KvInfo, positions: usize, sequences: usize) -> Result<Self> {
        let too_large = || {
            Error::fit(format!(
                "a KV cache of {sequences} x {positions} positions is too large; give a smaller --ctx-size"
            ))
        };
        let total = bytes(info, positions, sequences).ok_or_else(too_large)?;
        let stride = positions.div_ceil(info.page_positions.max(1));
        let pages = stride.checked_mul(sequences).and_then(|n| i32::try_from(n).ok()).ok_or_else(too_large)?;
        let memory = Mapping::reserve(total)?;
        memory.prefer_huge_pages();
        let table = Mapping::reserve(pages as usize * size_of::<i32>())?;
        Ok(Self {
            memory,
            table,
            page_positions: info.page_positions.max(1),
            page_bytes: info.page_bytes,
            places: Places::new(&info.places, &info.counts),
            stride,
            sequences: vec![Sequence::default(); sequences],
            // Taken from the end: the lowest page first.
            free: (0..pages).rev().collect(),
        })
    }

    /// Positions that a sequence holds.
    pub fn positions(&self, sequence: usize) -> usize {
        self.sequences[sequence].positions
    }

    /// Positions that a sequence had and no longer holds.
    pub fn forgotten(&self, sequence: usize) -> usize {
        self.sequences[sequence].forgotten * self.page_positions
    }

    /// Forgets what the next token of a sequence does not see.
    pub fn slide(&mut self, sequence: usize, keep: Keep) {
        match keep.by_use {
            true if self.is_full(sequence) => self.forget_least_used(sequence),
            true => {}
            false => self.forget_pages(sequence, keep),
        }
    }

    /// Forgets pages that the next token of a sequence does not see; the ones behind move up.
    fn forget_pages(&mut self, sequence: usize, keep: Keep) {
        let held = &self.sequences[sequence];
        let pages = keep.forgotten(held.positions / self.page_positions);
        let pages = pages.min(held.blocks.saturating_sub(keep.sinks));
        for _ in 0..pages {
            let blocks = self.sequences[sequence].blocks;
            let page = self.row_mut(sequence)[keep.sinks];
            self.row_mut(sequence).copy_within(keep.sinks + 1..blocks, keep.sinks);
            self.free.push(page);
            let held = &mut self.sequences[sequence];
            held.blocks -= 1;
            held.positions -= self.page_positions;
            held.forgotten += 1;
        }
    }

    /// Goes back to the first `length` positions that a sequence had, or to none where a page is forgotten that
    /// the next token would see, or where positions are counted by tokens that go. Gives how many are left.
    pub fn rewind(&mut self, sequence: usize, length: usize, keep: Option<Keep>) -> usize {
        if keep.is_some_and(|keep| keep.by_use) {
            if length < self.positions(sequence) + self.forgotten(sequence) {
                self.truncate(sequence, 0);
            }
            return self.positions(sequence) + self.forgotten(sequence);
        }
        let forgotten = self.sequences[sequence].forgotten;
        let unseen = keep.map_or(0, |keep| keep.forgotten(length / self.page_positions));
        if forgotten > unseen {
            self.truncate(sequence, 0);
            return 0;
        }
        self.truncate(sequence, length - forgotten * self.page_positions);
        length.min(self.positions(sequence) + self.forgotten(sequence))
    }

    /// Most positions that a sequence can hold.
    pub fn capacity(&self) -> usize {
        self.stride * self.page_positions
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Pages that no sequence holds.
    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Gives a sequence pages up to `positions`; pages it has stay. Allocates nothing.
    pub fn grow(&mut self, sequence: usize, positions: usize) -> Result<()> {
        let need = positions.div_ceil(self.page_positions);
        let have = self.sequences[sequence].blocks;
        if need > self.stride || need.saturating_sub(have) > self.free.len() {
            return Err(Error::fit(format!(
                "{positions} positions do not fit in the KV cache ({} per sequence, {} pages of {} free); give a larger --ctx-size",
                self.capacity(),
                self.free.len(),
                self.page_positions
            )));
        }
        for block in have..need {
            if let Some(page) = self.free.pop() {
                self.row_mut(sequence)[block] = page;
                self.clear_counts(page);
            }
        }
        let sequence = &mut self.sequences[sequence];
        sequence.blocks = sequence.blocks.max(need);
        sequence.positions = sequence.positions.max(positions);
        Ok(())
    }

    /// Forgets what a sequence holds from `positions` on and takes back pages that become empty.
    pub fn truncate(&mut self, sequence: usize, positions: usize) {
        let keep = positions.div_ceil(self.page_positions);
        for block in (keep..self.sequences[sequence].blocks).rev() {
            let page = self.row_mut(sequence)[block];
            self.free.push(page);
        }
        let sequence = &mut self.sequences[sequence];
        sequence.blocks = sequence.blocks.min(keep);
        sequence.positions = sequence.positions.min(positions);
        if positions == 0 {
            sequence.forgotten = 0;
        }
    }

    /// Pages of a sequence, in the order of its blocks.
    pub fn pages(&self, sequence: usize) -> &[i32] {
        let start = sequence * self.stride;
        &self.table.slice(self.stride * self.sequences.len())[start..start + self.sequences[sequence].blocks]
    }

    /// First byte of page 0.
    pub fn base(&self) -> *mut u8 {
        self.memory.base()
    }

    /// The page table: one row of [`Self::stride`] entries for each sequence.
    pub fn table(&self) -> *const i32 {
        self.table.base().cast_const().cast()
    }

    /// The page table of the first `sequences` sequences.
    pub fn rows(&self, sequences: usize) -> &[i32] {
        self.table.slice(self.stride * sequences)
    }

    /// Entries in a row of the page table.
    pub fn stride(&self) -> usize {
        self.stride
    }

    fn row_mut(&mut self, sequence: usize) -> &mut [i32] {
        let (stride, rows) = (self.stride, self.sequences.len());
        &mut self.table.slice_mut(stride * rows)[sequence * stride..(sequence + 1) * stride]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> KvInfo {
        KvInfo { dtype: "f32".into(), page_positions: 4, page_bytes: 256, ..KvInfo::default() }
    }

    #[test]
    fn pages_are_handed_out_and_taken_back() {
        let mut kv = KvCache::new(&info(), 10, 2).expect("fits");
        assert_eq!((kv.capacity(), kv.free_pages()), (12, 6));
        kv.grow(0, 1).expect("fits");
        kv.grow(1, 5).expect("fits");
        kv.grow(0, 9).expect("fits");
        assert_eq!((kv.pages(0), kv.pages(1)), (&[0, 3, 4][..], &[1, 2][..]));
        kv.truncate(0, 4);
        assert_eq!((kv.positions(0), kv.pages(0), kv.free_pages()), (4, &[0][..], 3));
        kv.grow(1, 12).expect("fits");
        assert_eq!(kv.pages(1), [1, 2, 3]);
        kv.truncate(0, 0);
        kv.truncate(1, 0);
        assert_eq!(kv.free_pages(), 6);
    }

    #[test]
    fn pages_between_the_first_and_the_last_are_forgotten() {
        let keep = Keep { sinks: 1, window: 2, by_use: false };
        let mut kv = KvCache::new(&info(), 20, 1).expect("fits");
        kv.grow(0, 12).expect("fits");
        let pages = kv.pages(0).to_vec();
        // The next token begins the fourth page: the second one is out of sight.
        kv.slide(0, keep);
        assert_eq!((kv.positions(0), kv.forgotten(0), kv.pages(0)), (8, 4, &[pages[0], pages[2]][..]));
        kv.slide(0, keep);
        assert_eq!((kv.positions(0), kv.forgotten(0)), (8, 4));
        kv.grow(0, 9).expect("fits");
        assert_eq!(kv.pages(0), [pages[0], pages[2], pages[1]]);
        // A token at 12 sees what is held, one at 11 would see the page that is gone.
        assert_eq!((kv.rewind(0, 12, Some(keep)), kv.positions(0)), (12, 8));
        assert_eq!((kv.rewind(0, 11, Some(keep)), kv.positions(0), kv.forgotten(0)), (0, 0, 0));
        assert_eq!(kv.free_pages(), 5);
        kv.grow(0, 7).expect("fits");
        assert_eq!((kv.rewind(0, 5, Some(keep)), kv.rewind(0, 3, None), kv.positions(0)), (5, 3, 3));
    }

    #[test]
    fn too_many_positions_are_refused() {
        let mut kv = KvCache::new(&info(), 8, 1).expect("fits");
        assert!(kv.grow(0, 9).expect_err("refused").message.contains("8 per sequence"));
        assert_eq!(kv.positions(0), 0);
    }

    #[test]
    fn sizes_are_checked() {
        let huge = KvInfo { page_bytes: usize::MAX / 2, ..info() };
        assert_eq!(bytes(&huge, 12, 1), None);
        assert_eq!(bytes(&info(), usize::MAX, 3), None);
        assert_eq!(bytes(&info(), 9, 2), Some(6 * 256));
        assert!(KvCache::new(&huge, 12, 1).is_err());
    }

    #[test]
    fn offsets_pass_32_bits() {
        let large = KvInfo { page_bytes: 1 << 30, ..info() };
        let kv = KvCache::new(&large, 40, 1).expect("reserved, not committed");
        assert_eq!(kv.memory.bytes(), 10 << 30);
    }
}
