//! Barriers: a kernel waits when it touches what another kernel of the same phase has written, or
//! writes what one has read.

use llmc_abi::manifest::{PhaseInfo, Unit};
use llmc_kernels::ops::step::Action;

/// Something kernels read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of the arena.
    Arena(usize, usize),
    /// The KV cache of the call's layer.
    Kv,
    /// The step's result.
    Logits,
}

impl Resource {
    fn overlaps(self, other: Resource) -> bool {
        match (self, other) {
            (Resource::Arena(a, b), Resource::Arena(c, d)) => a < d && c < b,
            (a, b) => a == b,
        }
    }
}

/// What a kernel reads and writes, and what that costs.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Read.
    pub reads: Vec<Resource>,
    /// Written.
    pub writes: Vec<Resource>,
    /// Weight bytes read for one token.
    pub weight_bytes: u64,
    /// KV bytes read for each cached position.
    pub kv_bytes_per_position: u64,
    /// Flops for each token, attention left out.
    pub flops_per_token: u64,
    /// Flops for each row whose logits are wanted.
    pub flops_per_row: u64,
    /// What its products are made with.
    pub unit: Option<Unit>,
}

/// Phases of the step so far; each ends at one barrier site.
#[derive(Debug, Default)]
pub struct Phases {
    /// Finished phases.
    pub list: Vec<PhaseInfo>,
    open: PhaseInfo,
    effects: Vec<Effects>,
}

impl Phases {
    /// Adds a kernel to the open phase, after a barrier if it has to wait. With `inner`, the kernel
    /// has a barrier inside; `build` gets that barrier's phase.
    pub fn kernel(
        &mut self,
        actions: &mut Vec<Action>,
        name: &str,
        effects: Effects,
        inner: bool,
        build: impl FnOnce(u32),
    ) {
        if self.conflicts(&effects) {
            self.barrier(actions);
        }
        self.open.kernels.push(name.into());
        let phase = self.list.len() as u32;
        if inner {
            let prologue = std::mem::take(&mut self.open);
            self.list.push(prologue);
            self.open.kernels.push(name.into());
        }
        self.open.weight_bytes += effects.weight_bytes;
        self.open.kv_bytes_per_position += effects.kv_bytes_per_position;
        self.open.flops_per_token += effects.flops_per_token;
        self.open.flops_per_row += effects.flops_per_row;
        self.open.unit = effects.unit.or(self.open.unit);
        self.effects.push(effects);
        actions.push(Action::Kernel(name.into()));
        build(phase);
    }

    /// Ends the open phase.
    pub fn barrier(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Barrier(self.list.len() as u32));
        self.list.push(std::mem::take(&mut self.open));
        self.effects.clear();
    }

    /// Phases `from..` run `count` times a step; sizes were those of one run.
    pub fn repeat(&mut self, from: usize, count: usize) {
        for phase in &mut self.list[from..] {
            phase.count = count;
            phase.weight_bytes *= count as u64;
            phase.kv_bytes_per_position *= count as u64;
            phase.flops_per_token *= count as u64;
            phase.flops_per_row *= count as u64;
        }
    }

    fn conflicts(&self, new: &Effects) -> bool {
        let any = |a: &[Resource], b: &[Resource]| a.iter().any(|x| b.iter().any(|y| x.overlaps(*y)));
        self.effects
            .iter()
            .any(|old| any(&old.writes, &new.reads) || any(&old.writes, &new.writes) || any(&old.reads, &new.writes))
    }
}
