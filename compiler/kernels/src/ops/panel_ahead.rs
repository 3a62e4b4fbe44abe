//! What a GEMV asks for before it needs it.
//!
//! A thread's panels stand one behind the other, each with its side region before its codes. They are asked for in the order
//! of memory, side regions and codes alike, at an even pace over a panel's steps: lines that come in one unbroken row
//! are what a processor's own prefetcher follows best.

use crate::env::Env;
use crate::kir::Val;
use crate::schedule::{Ahead, Streams};

/// How panels are asked for that are read step by step.
#[derive(Clone, Copy)]
pub(super) struct PanelAhead {
    /// Bytes of a panel.
    pub panel_bytes: usize,
    /// Steps that a panel is read in.
    pub steps: usize,
    /// Panels that are read together.
    pub panels: usize,
    /// How they are read.
    pub streams: Streams,
    /// Whether all of a panel is asked for, and not its beginning alone, which no processor guesses where
    /// several panels are read together.
    pub whole: bool,
}

/// What a step asks for, if it does: as many bytes as are its share of a panel, from a place behind that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// How far behind.
    pub ahead: Ahead,
    /// Bytes of a step's share.
    share: usize,
}

impl Ask {
    /// Asks for what stands behind the share of step `step` (i64) of the panel at `panel`.
    pub fn emit(&self, env: &mut Env, panel: Val, step: Val) {
        let wanted = env.at(panel, step, self.share);
        self.ahead.emit_bytes(env, wanted, self.share);
    }
}

/// Some steps, `first..end`, and what each of them asks for.
pub(super) type Part = ((usize, usize), Option<Ask>);

impl PanelAhead {
    /// Bytes of a step's share of a panel.
    fn share(&self) -> usize {
        self.panel_bytes.div_ceil(self.steps.max(1))
    }

    /// What steps ask for that stands so many bytes behind.
    fn ask(&self, bytes: usize) -> Option<Ask> {
        (self.streams.prefetch > 0).then(|| Ask { ahead: self.streams.ask(bytes), share: self.share() })
    }

    /// What steps ask for of the same panel.
    pub fn within(&self) -> Option<Ask> {
        self.ask(self.streams.prefetch)
    }

    /// A panel's steps, which may be none, cut where what they ask for no longer stands in the same panel, at a
    /// multiple of `unit`. One panel alone is followed by the one that comes next, and its steps are not cut.
    pub fn parts(&self, unit: usize) -> Vec<Part> {
        if self.streams.prefetch == 0 || self.whole && self.panels == 1 {
            return vec![((0, self.steps), self.within())];
        }
        let within = self.panel_bytes.saturating_sub(self.streams.prefetch) / self.share();
        let cut = within / unit * unit;
        let next = self.ask(self.streams.prefetch + (self.panels - 1) * self.panel_bytes);
        vec![((0, cut), self.within().filter(|_| self.whole)), ((cut, self.steps), next)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::CacheLevel;
    use crate::layout::ALIGN;

    fn ahead(panels: usize, prefetch: usize) -> PanelAhead {
        let streams = Streams { panels, prefetch, into: CacheLevel::L2 };
        PanelAhead { panel_bytes: 64 * 266, steps: 64, panels, streams, whole: true }
    }

    /// Lines, by their number, that steps of the panels from `panel` on ask for.
    fn asked(of: &PanelAhead, panel: usize) -> Vec<usize> {
        let mut lines = vec![];
        for ((first, end), ahead) in of.parts(1) {
            for step in first..end {
                let from =
                    panel * of.panel_bytes + step * of.share() + ahead.expect("panels are asked for").ahead.bytes;
                lines.extend((0..of.share()).step_by(ALIGN).map(|line| (from + line) / ALIGN));
            }
        }
        lines
    }

    #[test]
    fn every_line_of_a_row_of_panels_is_asked_for_in_order() {
        let one = ahead(1, 8192);
        let lines: Vec<usize> = (0..3).flat_map(|panel| asked(&one, panel)).collect();
        assert!(lines.windows(2).all(|w| w[1] <= w[0] + 1), "{lines:?}");
        assert_eq!((lines[0], *lines.last().expect("some")), (128, (3 * one.panel_bytes + 8192 - 1) / ALIGN));
    }

    #[test]
    fn panels_read_together_are_followed_by_those_behind_them() {
        let two = ahead(2, 2048);
        let (lines, of_panel) = (asked(&two, 0), two.panel_bytes / ALIGN);
        let has = |from: usize, to: usize| (from..to).all(|line| lines.contains(&line));
        let of_a_step = two.share().div_ceil(ALIGN);
        assert!(has(2048 / ALIGN, of_panel - of_a_step), "{lines:?}");
        assert!(has(2 * of_panel, 2 * of_panel + 2048 / ALIGN - of_a_step), "{lines:?}");
        assert!(!lines.contains(&(of_panel + of_a_step)), "{lines:?}");
    }

    #[test]
    fn beginnings_alone_and_nothing_at_all() {
        let beginning = PanelAhead { whole: false, ..ahead(1, 2048) };
        assert_eq!(
            beginning.parts(4).iter().map(|(steps, a)| (*steps, a.is_some())).collect::<Vec<_>>(),
            [((0, 56), false), ((56, 64), true)]
        );
        assert_eq!(ahead(1, 0).parts(1), [((0, 64), None)]);
    }
}
