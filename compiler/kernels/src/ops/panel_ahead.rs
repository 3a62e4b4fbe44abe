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

/// Some steps, `first..end`, and what each of them asks for.
pub(super) type Part = ((usize, usize), Option<Ahead>);

impl PanelAhead {
    /// Bytes that a step asks for.
    fn pace(&self) -> usize {
        self.panel_bytes.div_ceil(self.steps.max(1))
    }

    /// A panel's steps, which may be none, cut where what they ask for no longer stands in the same panel, at a
    /// multiple of `unit`. One panel alone is followed by the one that comes next, and its steps are not cut.
    pub fn parts(&self, unit: usize) -> Vec<Part> {
        let (all, ahead) = ((0, self.steps), self.streams.ask(self.streams.prefetch));
        match (ahead.bytes, self.panels) {
            (0, _) => vec![(all, None)],
            (_, 1) if self.whole => vec![(all, Some(ahead))],
            _ => {
                let cut = self.steps_within(ahead.bytes) / unit * unit;
                let next = Ahead { bytes: ahead.bytes + (self.panels - 1) * self.panel_bytes, ..ahead };
                vec![((0, cut), self.whole.then_some(ahead)), ((cut, self.steps), Some(next))]
            }
        }
    }

    /// Steps behind which, so many bytes, the same panel still stands.
    fn steps_within(&self, bytes: usize) -> usize {
        self.panel_bytes.saturating_sub(bytes) / self.pace()
    }

    /// Asks for what stands behind step `step` (i64) of the panel at `panel`.
    pub fn emit(&self, env: &mut Env, panel: Val, step: Val, ahead: Ahead) {
        let wanted = env.at(panel, step, self.pace());
        ahead.emit_bytes(env, wanted, self.pace());
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
                let from = panel * of.panel_bytes + step * of.pace() + ahead.expect("panels are asked for").bytes;
                lines.extend((0..of.pace()).step_by(ALIGN).map(|line| (from + line) / ALIGN));
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
        let of_a_step = two.pace().div_ceil(ALIGN);
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
