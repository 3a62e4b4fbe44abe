//! Memory that an artifact needs, known from its manifest before anything is allocated.

use llmc_abi::Manifest;

use crate::error::{Error, Result};
use crate::kv;
use crate::limits;

/// Anonymous memory of an engine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Scratch of the step, all workers together.
    pub arena: usize,
    /// Logits of the most rows of a step.
    pub logits: usize,
    /// KV cache.
    pub kv: usize,
}

impl Memory {
    /// Memory for `sequences` sequences of `positions` positions run by `workers` workers; none
    /// where a size passes 64 bits.
    pub fn of(manifest: &Manifest, variant: usize, workers: usize, positions: usize, sequences: usize) -> Option<Self> {
        let code = manifest.variants.get(variant)?;
        let arena = match code.group {
            None => code.worker_bytes.checked_mul(workers)?.checked_add(code.arena_bytes)?,
            // The steps of a GPU run one after another.
            Some(_) => manifest.variants.iter().filter(|v| v.group.is_some()).map(|v| v.arena_bytes).max()?,
        };
        let row = manifest.model.vocab.checked_mul(size_of::<f32>())?;
        let logits = row.checked_mul(manifest.step.rows)?;
        Some(Self { arena, logits, kv: kv::bytes(&manifest.kv, positions, sequences)? })
    }

    /// All of it; none where it passes 64 bits.
    pub fn total(&self) -> Option<usize> {
        self.arena.checked_add(self.logits)?.checked_add(self.kv)
    }
}

/// What an engine is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Index of the chosen variant.
    pub variant: usize,
    /// Workers.
    pub workers: usize,
    /// Positions per sequence; none means as many as the model and the memory allow.
    pub context: Option<usize>,
    /// Sequences held at once.
    pub sequences: usize,
}

/// The context to use, in positions.
///
/// # Errors
///
/// Exit code 4 where the context asked for passes the model's, or does not fit into memory.
pub fn choose_context(manifest: &Manifest, request: &Request) -> Result<usize> {
    choose(manifest, request, limits::memory_available())
}

/// The same with so many bytes of memory.
///
/// # Errors
///
/// As [`choose_context`].
pub fn choose(manifest: &Manifest, request: &Request, available: Option<u64>) -> Result<usize> {
    let limit = manifest.kv.held(manifest.model.context, manifest.step.tokens);
    if manifest.kv.keep.is_some() && request.context.is_some() {
        return Err(Error::usage(format!(
            "--ctx-size: the model was compiled to keep {limit} positions of a text of any length; leave --ctx-size out"
        )));
    }
    let wanted = request.context.unwrap_or(limit);
    if wanted == 0 || limit == 0 {
        return Err(Error::usage("a context of 0 positions holds nothing; give --ctx-size 1 or more"));
    }
    if wanted > limit {
        return Err(Error::fit(format!(
            "--ctx-size {wanted} is more than the {limit} positions the model was made for; give at most {limit}"
        )));
    }
    let need = |positions| {
        Memory::of(manifest, request.variant, request.workers, positions, request.sequences)
            .and_then(|m| m.total())
            .and_then(|n| u64::try_from(n).ok())
    };
    let fits = |positions| need(positions).is_some_and(|n| available.is_none_or(|room| n <= room));
    if fits(wanted) {
        return Ok(wanted);
    }
    // A context asked for is given or refused; the model's own is capped to what fits.
    let most = largest(wanted, fits);
    match request.context {
        None if most > 0 && manifest.kv.keep.is_none() => Ok(most),
        _ => Err(refusal(wanted, need(wanted), available, most)),
    }
}

/// The largest number of positions up to `limit` that fits; `fits` must hold up to some number only.
fn largest(limit: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, limit);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

fn refusal(positions: usize, need: Option<u64>, available: Option<u64>, most: usize) -> Error {
    let text = |bytes: Option<u64>| bytes.map_or("more than 64 bits of bytes".into(), megabytes);
    let advice = match most {
        0 => "free memory or raise the memory limit".to_string(),
        most => format!("give --ctx-size {most} or less, or free memory"),
    };
    Error::fit(format!(
        "{positions} positions need {} of memory, {} are available; {advice}",
        text(need),
        text(available)
    ))
}

/// Bytes as `12.3 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_abi::manifest::{KvInfo, ModelInfo, StepInfo, VariantInfo};

    fn manifest() -> Manifest {
        Manifest {
            model: ModelInfo { vocab: 100, context: 64, ..Default::default() },
            step: StepInfo { tokens: 8, rows: 2 },
            kv: KvInfo { dtype: "f16".into(), page_positions: 16, page_bytes: 1000, ..KvInfo::default() },
            variants: vec![VariantInfo { arena_bytes: 500, worker_bytes: 10, ..Default::default() }],
            ..Default::default()
        }
    }

    fn request(context: Option<usize>) -> Request {
        Request { variant: 0, workers: 3, context, sequences: 1 }
    }

    #[test]
    fn adds_up() {
        let memory = Memory::of(&manifest(), 0, 3, 17, 2).expect("small");
        assert_eq!(memory, Memory { arena: 530, logits: 800, kv: 4000 });
        assert_eq!(memory.total(), Some(5330));
        assert_eq!(Memory::of(&manifest(), 0, usize::MAX, 17, 2), None);
    }

    #[test]
    fn contexts() {
        let choose = |context, room| choose(&manifest(), &request(context), room);
        assert_eq!(choose(None, None), Ok(64));
        assert_eq!(choose(None, Some(5330)), Ok(64));
        assert_eq!(choose(None, Some(5000)), Ok(48));
        assert_eq!(choose(Some(32), Some(5000)), Ok(32));
        assert_eq!(choose(Some(0), None).expect_err("empty").code(), 2);
        assert!(choose(Some(65), None).expect_err("too long").message.contains("at most 64"));
        let refused = choose(Some(64), Some(5000)).expect_err("no room");
        assert_eq!((refused.code(), refused.message.contains("--ctx-size 48")), (4, true));
        assert_eq!(choose(None, Some(100)).expect_err("no room").code(), 4);
    }
}
