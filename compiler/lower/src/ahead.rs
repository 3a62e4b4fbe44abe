//! Where a step asks for weights before they can be used: before the barrier that the kernel which reads them
//! waits at, or earlier where what runs before it reads no weights itself.

use llmc_kernels::ops::step::Action;

/// Places in a block's actions.
#[derive(Debug, Default)]
pub struct AheadPlaces {
    /// Kernel that asks for the weights of the block's first product: the call before runs it.
    first: Option<String>,
    /// Number of actions before the last kernel that read weights, and whether others have run since.
    after: Option<usize>,
}

impl AheadPlaces {
    /// Adds a kernel that asks for the weights of the kernel which `actions` end with.
    pub fn place(&mut self, actions: &mut Vec<Action>, name: String) {
        match self.after {
            None => self.first = self.first.take().or(Some(name)),
            Some(at) => actions.insert(at, Action::Kernel(name)),
        }
    }

    /// Notes that `actions` end with a kernel; without weights the next product's can be asked for before
    /// it runs.
    pub fn kernel(&mut self, actions: &[Action], weightless: bool) {
        if self.after.is_none() && weightless {
            return;
        }
        // Behind the barrier before a kernel without weights, else behind the kernel.
        let before = actions.len() - 1;
        self.after = Some(if weightless { self.after.map_or(before, |_| before) } else { actions.len() });
    }

    /// At the end of the block's actions: the first product's weights in the call that comes next.
    pub fn finish(self: &mut AheadPlaces, actions: &mut Vec<Action>) {
        actions.extend(self.first.take().map(Action::Ahead));
    }
}
