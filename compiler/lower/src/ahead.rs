//! Where a step asks for the weights of its next product before they can be used: when the product before is
//! done with its own, so that they come in while the workers meet and while kernels run that read no weights. What
//! attention reads of earlier positions is asked for when its block begins.

use llmc_kernels::ops::step::Action;

/// Places in a block's actions.
#[derive(Debug, Default)]
pub struct AheadPlaces {
    /// Kernels that ask for the weights of the block's first product and for its pages: what comes before the call runs
    /// them.
    pub first: Vec<String>,
    /// Number of actions up to the last product.
    after: Option<usize>,
}

impl AheadPlaces {
    /// Notes that `actions` end with a product, and the kernel that asks for its weights.
    pub fn product(&mut self, actions: &mut Vec<Action>, ask: Option<String>) {
        match self.after {
            None => self.first.splice(0..0, ask).for_each(drop),
            Some(at) => ask.into_iter().for_each(|name| actions.insert(at, Action::Ask(name))),
        }
        self.after = Some(actions.len());
    }

    /// Notes a kernel that asks for pages of the cache.
    pub fn pages(&mut self, ask: Option<String>) {
        self.first.extend(ask);
    }

    /// At the end of the block's actions: what comes next is asked for after its last product.
    pub fn finish(&self, actions: &mut Vec<Action>) {
        actions.insert(self.after.unwrap_or(0), Action::Ahead);
    }
}
