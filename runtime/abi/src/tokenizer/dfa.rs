//! A regular expression as a table over classes of characters.
//!
//! Layout: `states`, `classes`, `pages`, 0 (u32 each); acceptance of each state (u8, padded to 4);
//! next state at `state * classes + class` (u16, padded to 4); page of each block of 256 code
//! points (u16, [`CHAR_PAGES`] of them); pages of 256 classes (u8). Characters that no part of the
//! expression tells apart share a class, so the table stays small at any size of Unicode.
//!
//! One character of look-ahead is expressed by states that accept before the last class read; the
//! end of the text is a class of its own ([`END_CLASS`]) for them.

use super::bytes::{read_u16, read_u32};

/// State from which nothing matches.
pub const DEAD: u16 = 0;
/// State before the first character.
pub const START: u16 = 1;
/// Class of the end of the text.
pub const END_CLASS: u8 = 0;
/// Acceptance of a state: the match ends after the last character.
pub const ACCEPT: u8 = 1;
/// Acceptance of a state: the match ends before the last character.
pub const ACCEPT_BEFORE_LAST: u8 = 2;
/// Blocks of 256 code points.
pub const CHAR_PAGES: usize = 0x1100;

/// View of one table.
#[derive(Clone, Copy, Debug)]
pub struct Dfa<'a> {
    classes: usize,
    accepts: &'a [u8],
    next: &'a [u8],
    page_of: &'a [u8],
    pages: &'a [u8],
}

impl<'a> Dfa<'a> {
    /// The table at byte `at` of the section, if all of it lies there.
    pub fn parse(section: &'a [u8], at: usize) -> Option<Self> {
        let bytes = section.get(at..)?;
        let field = |i: usize| read_u32(bytes, 4 * i).map(|v| v as usize);
        let (states, classes, pages) = (field(0)?, field(1)?, field(2)?);
        let mut at = 16usize;
        let mut take = |len: usize| {
            let part = bytes.get(at..at.checked_add(len)?)?;
            at += len.checked_next_multiple_of(4)?;
            Some(part)
        };
        Some(Dfa {
            classes,
            accepts: take(states)?,
            next: take(states.checked_mul(classes)?.checked_mul(2)?)?,
            page_of: take(2 * CHAR_PAGES)?,
            pages: take(pages.checked_mul(256)?)?,
        })
    }

    #[inline]
    fn class_of(&self, c: char) -> u8 {
        let page = read_u16(self.page_of, (c as usize >> 8) * 2).unwrap_or(0) as usize;
        self.pages.get(page * 256 + (c as usize & 255)).copied().unwrap_or(END_CLASS)
    }

    #[inline]
    fn step(&self, state: u16, class: u8) -> u16 {
        read_u16(self.next, (state as usize * self.classes + class as usize) * 2).unwrap_or(DEAD)
    }

    #[inline]
    fn acceptance(&self, state: u16) -> u8 {
        self.accepts.get(state as usize).copied().unwrap_or(0)
    }

    /// End of the match that starts at the beginning of `text`; never 0.
    #[inline]
    pub fn match_len(&self, text: &str) -> Option<usize> {
        let (mut state, mut at, mut best) = (START, 0, 0);
        for c in text.chars() {
            state = self.step(state, self.class_of(c));
            if state == DEAD {
                return (best > 0).then_some(best);
            }
            let before = at;
            at += c.len_utf8();
            match self.acceptance(state) {
                ACCEPT => best = at,
                ACCEPT_BEFORE_LAST => best = before,
                _ => {}
            }
        }
        if self.acceptance(self.step(state, END_CLASS)) == ACCEPT_BEFORE_LAST {
            best = at;
        }
        (best > 0).then_some(best)
    }

    /// First match at or after byte `from`, which lies between characters: (start, end).
    pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let rest = text.get(from..)?;
        rest.char_indices().find_map(|(i, _)| {
            let len = self.match_len(&rest[i..])?;
            Some((from + i, from + i + len))
        })
    }
}
