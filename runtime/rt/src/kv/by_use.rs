//! Forgetting the positions that attention has used least (heavy hitters, arXiv 2306.14048).
//!
//! When a sequence's pages are full, one position of each place in a page is forgotten: the least used of those
//! in the oldest pages. The positions of that place behind it move up by a page, so the last page becomes free,
//! and every key keeps the place that it was turned by.

use super::KvCache;
use llmc_abi::manifest::{KvPlaces, PAGE_POSITIONS};

/// Positions are forgotten in the oldest pages, one in so many: newer ones were not there to be used.
const OLDEST: usize = 4;

/// What is left of a count when one of `blocks` pages has become free: what was used long ago counts less, and the
/// sooner the less is kept.
fn remaining(blocks: usize) -> f32 {
    1.0 - 2.0 / blocks.max(4) as f32
}

/// Where the bytes of positions lie, and their counts.
#[derive(Debug, Default)]
pub(super) struct Places {
    kept: Vec<KvPlaces>,
    counts: Vec<KvPlaces>,
}

impl Places {
    pub(super) fn new(kept: &[KvPlaces], counts: &[KvPlaces]) -> Self {
        Self { kept: kept.to_vec(), counts: counts.to_vec() }
    }
}

/// For each place in a page the block whose position is forgotten.
type Forgotten = [usize; PAGE_POSITIONS];

impl KvCache {
    /// Whether a position of a sequence must be forgotten before it can have another one.
    pub fn is_full(&self, sequence: usize) -> bool {
        self.positions(sequence) >= self.capacity()
    }

    /// Forgets a page's worth of a full sequence's positions. Allocates nothing.
    pub fn forget_least_used(&mut self, sequence: usize) {
        let blocks = self.sequences[sequence].blocks;
        let oldest = (blocks / OLDEST).max(1);
        let forgotten: Forgotten = std::array::from_fn(|place| self.least_used(sequence, place, oldest));
        for block in 0..blocks.saturating_sub(1) {
            self.move_up(sequence, block, &forgotten);
            let (page, remaining) = (self.pages(sequence)[block], remaining(blocks));
            self.each_count(page, |count| *count *= remaining);
        }
        let held = self.positions(sequence);
        self.truncate(sequence, held.saturating_sub(self.page_positions).max(1));
        self.sequences[sequence].forgotten += 1;
    }

    /// Sets the counts of a new page to zero.
    pub(super) fn clear_counts(&mut self, page: i32) {
        self.each_count(page, |count| *count = 0.0);
    }

    fn each_count(&mut self, page: i32, change: impl Fn(&mut f32)) {
        for i in 0..self.places.counts.len() {
            let rows = self.places.counts[i];
            for head in 0..rows.heads {
                let at = (page as usize * self.page_bytes + rows.offset + head * rows.stride) / size_of::<f32>();
                let counts = self.memory.slice_mut::<f32>(at + self.page_positions);
                counts[at..].iter_mut().for_each(&change);
            }
        }
    }

    /// Of the first `candidates` blocks the one whose position at `place` was used least; the first of equals.
    fn least_used(&self, sequence: usize, place: usize, candidates: usize) -> usize {
        let used = |block: &usize| self.used(self.pages(sequence)[*block], place);
        (0..candidates).min_by(|a, b| used(a).total_cmp(&used(b))).unwrap_or(0)
    }

    /// Attention that a position got from all heads of all layers.
    fn used(&self, page: i32, place: usize) -> f64 {
        let counts = self.memory.slice::<f32>(self.memory.bytes() / size_of::<f32>());
        let first = page as usize * self.page_bytes;
        let of = |rows: &KvPlaces| -> f64 {
            let at = |head| (first + rows.offset + head * rows.stride) / size_of::<f32>() + place;
            (0..rows.heads).map(|head| f64::from(counts[at(head)])).sum()
        };
        self.places.counts.iter().map(of).sum()
    }

    /// Gives a block the positions of the next one, at the places where one up to here is forgotten.
    fn move_up(&mut self, sequence: usize, block: usize, forgotten: &Forgotten) {
        let [to, from] = [0, 1].map(|next| self.pages(sequence)[block + next] as usize * self.page_bytes);
        let memory = self.memory.slice_mut::<u8>(self.memory.bytes());
        for rows in self.places.kept.iter().chain(&self.places.counts) {
            let row_bytes = rows.bytes * self.page_positions;
            for head in 0..rows.heads {
                for row in 0..rows.rows {
                    let at = rows.offset + head * rows.stride + row * row_bytes;
                    let moves = forgotten.iter().enumerate().filter(|(_, first)| **first <= block);
                    for place in moves.map(|(place, _)| at + place * rows.bytes) {
                        memory.copy_within(from + place..from + place + rows.bytes, to + place);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::KvCache;
    use super::*;
    use llmc_abi::manifest::{Keep, KvInfo};

    /// Bytes of a page: a key of one byte, a value of two, a count.
    const PAGE_BYTES: usize = PAGE_POSITIONS * (1 + 2 + 4);

    fn places(offset: usize, bytes: usize) -> KvPlaces {
        KvPlaces { offset, heads: 1, stride: 0, rows: 1, bytes }
    }

    fn info(pages: usize) -> KvInfo {
        KvInfo {
            dtype: "i8".into(),
            page_positions: PAGE_POSITIONS,
            page_bytes: PAGE_BYTES,
            keep: Some(Keep { sinks: 0, window: pages, by_use: true }),
            places: vec![places(0, 1), places(PAGE_POSITIONS, 2)],
            counts: vec![places(3 * PAGE_POSITIONS, 4)],
        }
    }

    fn cache(pages: usize) -> KvCache {
        KvCache::new(&info(pages), pages * PAGE_POSITIONS, 1).expect("fits")
    }

    /// Fills the pages from block `from` on: position p has key p, value (p, 1) and the count given.
    fn fill(kv: &mut KvCache, from: usize, count: impl Fn(usize) -> f32) {
        kv.grow(0, kv.capacity()).expect("fits");
        for block in from..kv.pages(0).len() {
            for place in 0..PAGE_POSITIONS {
                let p = block * PAGE_POSITIONS + place;
                let at = kv.pages(0)[block] as usize * PAGE_BYTES;
                let memory = kv.memory.slice_mut::<u8>(at + PAGE_BYTES);
                memory[at + place] = p as u8;
                memory[at + PAGE_POSITIONS + 2 * place..][..2].copy_from_slice(&[p as u8, 1]);
                memory[at + 3 * PAGE_POSITIONS + 4 * place..][..4].copy_from_slice(&count(p).to_le_bytes());
            }
        }
    }

    /// Keys of a place, block by block, after a check of the values that belong to them.
    fn keys(kv: &KvCache, place: usize) -> Vec<u8> {
        let of = |page: &i32| {
            let memory = &kv.memory.slice::<u8>(kv.memory.bytes())[*page as usize * PAGE_BYTES..];
            assert_eq!(memory[PAGE_POSITIONS + 2 * place..][..2], [memory[place], 1]);
            memory[place]
        };
        kv.pages(0).iter().map(of).collect()
    }

    #[test]
    fn the_least_used_position_of_each_place_is_forgotten() {
        let mut kv = cache(8);
        // The least used are in block 1 at even places, in block 0 at odd ones; blocks 2 to 7 are newer.
        fill(&mut kv, 0, |p| match (p / PAGE_POSITIONS, p % 2) {
            (1, 0) | (0, 1) => 0.5,
            (2.., _) if p % 5 == 0 => 0.0,
            _ => 1.0,
        });
        assert!(kv.is_full(0));
        kv.forget_least_used(0);
        assert_eq!((kv.positions(0), kv.forgotten(0), kv.free_pages()), (224, 32, 1));
        let first = |kv: &KvCache, place: usize| keys(kv, place)[..3].to_vec();
        assert_eq!((first(&kv, 0), first(&kv, 1)), (vec![0, 64, 96], vec![33, 65, 97]));
        assert_eq!((first(&kv, 30), keys(&kv, 30)[6]), (vec![30, 94, 126], 254));
        assert_eq!(kv.used(kv.pages(0)[1], 0), f64::from(remaining(8)));
        fill(&mut kv, 7, |_| 0.0);
        kv.forget_least_used(0);
        // What moved up took its count along: key 65 nobody has used, of those used alike the oldest goes.
        assert_eq!((first(&kv, 0), first(&kv, 1)), (vec![64, 96, 128], vec![33, 97, 129]));
    }

    #[test]
    fn places_outside_a_page_are_seen() {
        assert!(info(2).is_sound_by_use() && !info(1).is_sound_by_use());
        let wrong = [
            KvPlaces { offset: PAGE_BYTES, ..places(0, 1) },
            KvPlaces { rows: 8, ..places(0, 1) },
            KvPlaces { heads: 2, stride: usize::MAX, ..places(0, 1) },
            KvPlaces { heads: 0, ..places(0, 1) },
        ];
        let sound = |wrong: &KvPlaces| KvInfo { places: vec![*wrong], ..info(2) }.is_sound_by_use();
        assert!(!wrong.iter().any(sound));
        let unaligned = KvInfo { counts: vec![places(1, 4)], ..info(2) };
        assert!(!unaligned.is_sound_by_use());
    }

    #[test]
    fn new_pages_count_from_zero() {
        let mut kv = cache(2);
        fill(&mut kv, 0, |_| 7.0);
        kv.truncate(0, 0);
        kv.grow(0, 1).expect("fits");
        assert_eq!(kv.used(kv.pages(0)[0], 3), 0.0);
    }

    #[test]
    fn what_was_counted_is_not_taken_back() {
        let mut kv = cache(2);
        let keep = Some(Keep { sinks: 0, window: 2, by_use: true });
        fill(&mut kv, 0, |_| 1.0);
        assert_eq!((kv.rewind(0, 64, keep), kv.positions(0)), (64, 64));
        assert_eq!((kv.rewind(0, 63, keep), kv.positions(0)), (0, 0));
    }
}
