//! Classes of characters that a set of regular expressions cannot tell apart.

use std::collections::BTreeMap;

use llmc_abi::tokenizer::{CHAR_PAGES, END_CLASS};

/// Sorted, disjoint, inclusive ranges of code points.
pub type CharSet = Vec<(u32, u32)>;

/// The set of characters for which `is_in` holds.
pub fn char_set(is_in: impl Fn(char) -> bool) -> CharSet {
    let mut set: CharSet = Vec::new();
    for c in ('\0'..=char::MAX).filter(|&c| is_in(c)) {
        match set.last_mut() {
            Some((_, last)) if *last + 1 == c as u32 => *last = c as u32,
            _ => set.push((c as u32, c as u32)),
        }
    }
    set
}

/// A partition of all code points; classes are numbered from 1, 0 is the end of the text.
pub struct Alphabet {
    /// Start of each stretch of one class, ascending from 0.
    starts: Vec<(u32, u8)>,
    /// Classes of each set.
    members: BTreeMap<CharSet, Vec<u8>>,
    /// Number of classes with the end of the text.
    pub classes: usize,
}

impl Alphabet {
    /// The coarsest partition in which every set is a union of classes; `None` where that takes
    /// more than 255.
    pub fn new(sets: impl IntoIterator<Item = CharSet>) -> Option<Self> {
        let mut members: BTreeMap<CharSet, Vec<u8>> = sets.into_iter().map(|s| (s, Vec::new())).collect();
        let mut events: BTreeMap<u32, Vec<usize>> = BTreeMap::from([(0, Vec::new())]);
        for (i, set) in members.keys().enumerate() {
            for &(first, last) in set {
                events.entry(first).or_default().push(i);
                events.entry(last + 1).or_default().push(i);
            }
        }
        let mut inside = vec![false; members.len()];
        let mut classes: BTreeMap<Vec<bool>, u8> = BTreeMap::new();
        let mut starts = Vec::new();
        for (at, toggled) in events {
            toggled.iter().for_each(|&i| inside[i] = !inside[i]);
            let next = u8::try_from(classes.len() + 1).ok()?;
            starts.push((at, *classes.entry(inside.clone()).or_insert(next)));
        }
        for (i, list) in members.values_mut().enumerate() {
            list.extend(classes.iter().filter(|(inside, _)| inside[i]).map(|(_, &class)| class));
            list.sort_unstable();
        }
        Some(Alphabet { starts, members, classes: classes.len() + 1 })
    }

    /// Classes that make up `set`, one of those given to [`Alphabet::new`].
    pub fn classes_of(&self, set: &CharSet) -> &[u8] {
        self.members.get(set).map_or(&[], Vec::as_slice)
    }

    /// The map from characters to classes: page of each block of 256 code points, then the pages.
    pub fn pages(&self) -> (Vec<u16>, Vec<u8>) {
        let mut index: BTreeMap<[u8; 256], u16> = BTreeMap::new();
        let mut pages = Vec::new();
        let mut page_of = Vec::with_capacity(CHAR_PAGES);
        let mut at = 0;
        for block in 0..CHAR_PAGES as u32 {
            let mut page = [END_CLASS; 256];
            for (i, class) in page.iter_mut().enumerate() {
                while self.starts.get(at + 1).is_some_and(|(start, _)| *start <= block * 256 + i as u32) {
                    at += 1;
                }
                *class = self.starts[at].1;
            }
            let next = index.len() as u16;
            page_of.push(*index.entry(page).or_insert_with(|| {
                pages.extend_from_slice(&page);
                next
            }));
        }
        (page_of, pages)
    }
}
