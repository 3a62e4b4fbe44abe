//! Decoding: from a sequence's last token to the next one. Where the engine chooses tokens by itself, the step
//! for a token has begun before the host knows it.

use llmc_abi::step;

use crate::engine::{Engine, Rows};
use crate::error::Result;
use crate::sampler::{Sampler, Sampling};

/// Chooses the tokens of one sequence.
pub struct Decoder {
    sampler: Sampler,
    /// How the engine chooses, where it does.
    own: Option<step::Sampling>,
    /// Steps begun whose tokens are not known.
    pending: usize,
}

impl Decoder {
    /// A decoder for sequences of `engine`.
    pub fn new(engine: &Engine, sampling: Sampling) -> Self {
        let own = engine.own_choice(&sampling);
        Self { sampler: Sampler::new(sampling, engine.vocab()), own, pending: 0 }
    }

    /// Notes a token of the prompt or of the answer, for the repeat penalty.
    pub fn observe(&mut self, token: u32) {
        self.sampler.observe(token);
    }

    /// The token after a prompt whose last token gave these logits.
    ///
    /// # Errors
    ///
    /// As [`Sampler::sample`].
    pub fn first(&mut self, logits: &[f32]) -> Result<u32> {
        self.sampler.sample(logits)
    }

    /// Adds `token`, the last one chosen, to sequence `seq` and chooses the next one. With `more`, another call
    /// is going to follow, if the sequence has room for it.
    ///
    /// # Errors
    ///
    /// As [`Engine::step`] and [`Sampler::sample`].
    pub fn next(&mut self, engine: &mut Engine, seq: usize, token: u32, more: bool) -> Result<u32> {
        let Some(own) = self.own else {
            return self.sampler.sample(engine.extend(seq, &[token], Rows::Last)?);
        };
        if self.pending == 0 {
            self.begin(engine, seq, Some(token), &own)?;
        }
        if more && engine.positions(seq) < engine.context() {
            self.begin(engine, seq, None, &own)?;
        }
        let chosen = engine.chosen();
        self.pending -= 1;
        chosen
    }

    fn begin(&mut self, engine: &mut Engine, seq: usize, token: Option<u32>, own: &step::Sampling) -> Result<()> {
        engine.begin(seq, token, own)?;
        self.pending += 1;
        Ok(())
    }

    /// Positions of sequence `seq` without those of tokens that are not known to be wanted.
    pub fn positions(&self, engine: &Engine, seq: usize) -> usize {
        engine.positions(seq) - self.pending
    }

    /// Undoes what was begun for tokens that are not wanted.
    pub fn finish(&mut self, engine: &mut Engine, seq: usize) {
        if self.pending > 0 {
            engine.undo(seq, std::mem::take(&mut self.pending));
        }
    }
}
