//! Where a step asks for the weights of its next product before they can be used: when the product before is
//! done with its own, so that they come in while the workers meet and while kernels run that read no weights.
//! Where such kernels run, there is time for the product after that one too: its weights come nearer.

use llmc_kernels::ops::step::Action;

/// Kernels that ask for a product's weights.
#[derive(Debug, Default)]
pub struct Asks {
    /// Begins to copy them, before nothing but this product.
    pub copy: Option<String>,
    /// Brings them nearer.
    pub fetch: Option<String>,
}

/// Places in a block's actions.
#[derive(Debug, Default)]
pub struct AheadPlaces {
    /// Kernel that asks for the weights of the block's first product: what comes before the call runs it.
    pub first: Option<String>,
    /// Number of actions up to the last product.
    after: Option<usize>,
    /// Number of actions up to the last kernel without weights before the last product, if there was one since the
    /// product before.
    early: Option<usize>,
    /// The same since the last product.
    others: Option<usize>,
}

impl AheadPlaces {
    /// Notes that `actions` end with a product.
    pub fn product(&mut self, actions: &mut Vec<Action>, asks: Asks) {
        let before = actions.len();
        if let Some(at) = self.after {
            let mut places = vec![(at, asks.copy)];
            places.extend(self.early.map(|early| (early, asks.fetch)));
            for (at, name) in places {
                name.into_iter().for_each(|name| actions.insert(at, Action::Ask(name)));
            }
        } else {
            self.first = asks.copy;
        }
        let added = actions.len() - before;
        self.early = self.others.take().filter(|_| self.after.is_some()).map(|at| at + added);
        self.after = Some(actions.len());
    }

    /// Notes that `actions` end with a kernel that reads no weights.
    pub fn other(&mut self, actions: &[Action]) {
        self.others = Some(actions.len());
    }

    /// At the end of the block's actions: what comes next is asked for after its last product.
    pub fn finish(&self, actions: &mut Vec<Action>) {
        actions.insert(self.after.unwrap_or(0), Action::Ahead);
    }
}
