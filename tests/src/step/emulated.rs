//! Steps of a whole model in an emulator.

use super::{Model, POISON, Pages, Runner, STEP_FIELDS, Step, arguments, floats, unwritten};
use crate::emulated::{Call, Emulated};
use llmc_kernels::Backend;
use std::collections::BTreeMap;
use std::path::Path;

/// A compiled model for a processor that this machine is not.
pub struct Foreign<'a> {
    model: &'a Model,
    code: Emulated,
    pages: Pages,
    workers: usize,
    kv: Vec<u8>,
}

impl<'a> Foreign<'a> {
    /// Compiles the model's step for its target, with files in `folder`.
    pub fn new(model: &'a Model, backend: &dyn Backend, pages: Pages, workers: usize, folder: &Path) -> Foreign<'a> {
        let target = &model.plan.variants[model.variant].target;
        let objects = backend.compile(model.program(), target).unwrap_or_else(|e| panic!("{e}"));
        let code = Emulated::link(&objects, &[model.entry()], target, folder);
        let kv = unwritten(&model.plan.kv, POISON).repeat(pages.end());
        Foreign { model, code, pages, workers, kv }
    }
}

impl Runner for Foreign<'_> {
    fn step(&mut self, step: &Step) -> Vec<f32> {
        let mut memory: Vec<(&str, Vec<u8>)> = vec![
            ("weights", self.model.weights.clone()),
            ("kv", std::mem::take(&mut self.kv)),
            ("arena", vec![POISON; self.model.arena_bytes(self.workers)]),
            ("logits", vec![POISON; step.rows.len() * self.model.vocab * 4]),
        ];
        let list = |list: &[i32]| list.iter().flat_map(|v| v.to_le_bytes()).collect();
        memory.extend(step.arrays(&self.pages).map(|(name, values)| (name, list(values))));
        let mut values: BTreeMap<&str, u64> = STEP_FIELDS.iter().map(|(name, _)| (*name, 0)).collect();
        values.extend(step.counts(&self.pages));
        let field = |name: &str| STEP_FIELDS.iter().find(|(n, _)| *n == name).expect("a field of the step").1;
        let pointers = memory.iter().enumerate().map(|(i, (name, _))| [0, field(name), i + 1]).collect();
        let buffers = std::iter::once(arguments(&values)).chain(memory.into_iter().map(|(_, bytes)| bytes)).collect();
        let call = Call { buffers, pointers, workers: self.workers };
        let mut after = self.code.run(self.model.entry(), &call);
        self.kv = std::mem::take(&mut after[2]);
        floats(&after[4])
    }
}
