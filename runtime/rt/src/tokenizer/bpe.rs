//! Byte-pair merges: of all neighbours in a word, the pair of lowest rank merges first, the
//! leftmost of equals before others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Words of at most this many symbols are merged by scanning for the lowest rank.
const SCAN_LIMIT: usize = 40;

/// Merges `symbols` in place. `merge(left, right)` gives a pair's rank and result.
pub(super) fn merge_all(symbols: &mut Vec<u32>, merge: impl Fn(u32, u32) -> Option<(u32, u32)>) {
    if symbols.len() <= SCAN_LIMIT {
        merge_by_scan(symbols, merge);
    } else {
        merge_by_heap(symbols, merge);
    }
}

/// No merge.
const STUCK: (u32, u32) = (u32::MAX, 0);

fn merge_by_scan(symbols: &mut Vec<u32>, merge: impl Fn(u32, u32) -> Option<(u32, u32)>) {
    let mut candidates = [STUCK; SCAN_LIMIT];
    let mut len = symbols.len();
    for i in 1..len {
        candidates[i - 1] = merge(symbols[i - 1], symbols[i]).unwrap_or(STUCK);
    }
    while len > 1 {
        let lowest = candidates[..len - 1].iter().enumerate().min_by_key(|(_, c)| c.0);
        let Some((i, &(rank, result))) = lowest.filter(|(_, c)| c.0 != STUCK.0) else { break };
        debug_assert!(rank != STUCK.0);
        symbols[i] = result;
        symbols.copy_within(i + 2..len, i + 1);
        candidates.copy_within(i + 1..len - 1, i);
        len -= 1;
        if i > 0 {
            candidates[i - 1] = merge(symbols[i - 1], result).unwrap_or(STUCK);
        }
        if i + 1 < len {
            candidates[i] = merge(result, symbols[i + 1]).unwrap_or(STUCK);
        }
    }
    symbols.truncate(len);
}

/// A merge that was possible when it was queued: ordered by rank, then place.
type Candidate = Reverse<(u32, u32, Pair)>;
/// Left, right and result.
type Pair = (u32, u32, u32);

/// No neighbour.
const NOWHERE: u32 = u32::MAX;

/// Symbols as a doubly linked list; a symbol merged into its left neighbour is `gone`.
struct Links {
    previous: Vec<u32>,
    next: Vec<u32>,
    gone: Vec<bool>,
}

impl Links {
    fn new(len: usize) -> Self {
        let last = len.saturating_sub(1);
        Links {
            previous: (0..len).map(|i| if i == 0 { NOWHERE } else { i as u32 - 1 }).collect(),
            next: (0..len).map(|i| if i == last { NOWHERE } else { i as u32 + 1 }).collect(),
            gone: vec![false; len],
        }
    }

    fn remove(&mut self, at: u32) {
        let (previous, next) = (self.previous[at as usize], self.next[at as usize]);
        self.gone[at as usize] = true;
        if previous != NOWHERE {
            self.next[previous as usize] = next;
        }
        if next != NOWHERE {
            self.previous[next as usize] = previous;
        }
    }
}

fn merge_by_heap(symbols: &mut Vec<u32>, merge: impl Fn(u32, u32) -> Option<(u32, u32)>) {
    let mut links = Links::new(symbols.len());
    let candidate = |symbols: &[u32], at: u32, next: u32| -> Option<Candidate> {
        if at == NOWHERE || next == NOWHERE {
            return None;
        }
        let (left, right) = (symbols[at as usize], symbols[next as usize]);
        merge(left, right).map(|(rank, result)| Reverse((rank, at, (left, right, result))))
    };
    let pairs = 1..symbols.len() as u32;
    let mut heap: BinaryHeap<Candidate> = pairs.filter_map(|i| candidate(symbols, i - 1, i)).collect();
    while let Some(Reverse((_, at, (left, right, result)))) = heap.pop() {
        let next = links.next[at as usize];
        let stale = links.gone[at as usize]
            || next == NOWHERE
            || symbols[at as usize] != left
            || symbols[next as usize] != right;
        if stale {
            continue;
        }
        symbols[at as usize] = result;
        links.remove(next);
        heap.extend(candidate(symbols, links.previous[at as usize], at));
        heap.extend(candidate(symbols, at, links.next[at as usize]));
    }
    let mut gone = links.gone.iter();
    symbols.retain(|_| !gone.next().copied().unwrap_or(false));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any two equal symbols merge into the next one; lower ones first.
    fn doubles(left: u32, right: u32) -> Option<(u32, u32)> {
        (left == right && left < 20).then_some((left, left + 1))
    }

    #[test]
    fn both_ways_agree() {
        for seed in 0u32..500 {
            let len = (seed % 39) as usize + 2;
            let word: Vec<u32> = (0..len as u32).map(|i| (i * seed).wrapping_mul(2_654_435_761) >> 31).collect();
            let (mut a, mut b) = (word.clone(), word);
            merge_by_scan(&mut a, doubles);
            merge_by_heap(&mut b, doubles);
            assert_eq!(a, b);
        }
    }

    #[test]
    fn long_words_stay_fast() {
        let mut word = vec![0; 1 << 20];
        merge_all(&mut word, doubles);
        assert_eq!(word, [20]);
    }
}
