//! How fast this machine reads memory, measured with the workers that run the model: the ceiling
//! that decoding is compared with.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::limits;
use crate::sys::mmap::Mapping;
use crate::sys::read::{STREAMS, read_streams};
use crate::workers::Workers;

// No sizes here are powers of two: streams that far apart would share the sets of every cache.

/// Least bytes of the anonymous buffer, more than a last-level cache holds.
const LEAST: u64 = 260_000_000;
/// Most bytes read per pass.
const MOST: u64 = 1_000_000_000;
/// Most bytes of a probe.
const PROBE: usize = 500_000_000;
/// Time spent on each number of streams.
const TIME: Duration = Duration::from_millis(80);

/// The best read speed over some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Bytes per nanosecond.
    pub gb_s: f64,
    /// The same on average over all passes of as many streams.
    pub mean_gb_s: f64,
    /// Streams per worker that gave it.
    pub streams: usize,
    /// Bytes of one pass.
    pub bytes: usize,
}

/// Read speeds of the two kinds of memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ceiling {
    /// An anonymous buffer.
    pub anonymous: Speed,
    /// The mapped weights.
    pub mapped: Speed,
}

impl Ceiling {
    /// The better of two measurements, kind by kind.
    pub fn or(self, other: Self) -> Self {
        let better = |a: Speed, b: Speed| if b.gb_s > a.gb_s { b } else { a };
        Self { anonymous: better(self.anonymous, other.anonymous), mapped: better(self.mapped, other.mapped) }
    }
}

/// Measures both kinds of memory; the anonymous buffer is gone afterwards.
pub fn measure(workers: &mut Workers, weights: &[u8]) -> Result<Ceiling> {
    let mapped = speed(workers, &weights[..weights.len().min(MOST as usize)]);
    let room = limits::memory_available().unwrap_or(LEAST) / 4;
    let bytes = (weights.len() as u64).clamp(LEAST, MOST).min(room) as usize;
    let mut buffer = Mapping::reserve(bytes)?;
    buffer.prefer_huge_pages();
    buffer.slice_mut::<u8>(bytes).fill(1);
    Ok(Ceiling { anonymous: speed(workers, buffer.slice(bytes)), mapped })
}

/// One pass over a part of the weights in as many streams as were best: bytes per nanosecond now.
/// What else a machine does may double or halve it within a second.
pub fn probe(workers: &mut Workers, weights: &[u8], best: Speed) -> f64 {
    pass(workers, &weights[..weights.len().min(PROBE)], best.streams.max(1))
}

/// The best pass over `bytes`, each worker reading a part of its own.
fn speed(workers: &mut Workers, bytes: &[u8]) -> Speed {
    let mut best = Speed { bytes: bytes.len(), ..Default::default() };
    if bytes.is_empty() {
        return best;
    }
    for streams in STREAMS {
        let start = Instant::now();
        let (mut passes, mut sum, mut most) = (0, 0.0, 0f64);
        while passes < 3 || start.elapsed() < TIME {
            let gb_s = pass(workers, bytes, streams);
            (passes, sum, most) = (passes + 1, sum + gb_s, most.max(gb_s));
        }
        if most > best.gb_s {
            best = Speed { gb_s: most, mean_gb_s: sum / f64::from(passes), streams, bytes: bytes.len() };
        }
    }
    best
}

fn pass(workers: &mut Workers, bytes: &[u8], streams: usize) -> f64 {
    let part = bytes.len().div_ceil(workers.count()).next_multiple_of(64);
    let start = Instant::now();
    workers.run(&|worker| {
        let from = (worker * part).min(bytes.len());
        let to = (from + part).min(bytes.len());
        black_box(read_streams(&bytes[from..to], streams));
    });
    bytes.len() as f64 / start.elapsed().as_nanos().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_positive() {
        let mut workers = Workers::start(Some(2)).expect("starts");
        let speed = speed(&mut workers, &vec![1u8; 1 << 20]);
        assert!(speed.gb_s > 0.1 && STREAMS.contains(&speed.streams), "{speed:?}");
        assert_eq!(super::speed(&mut workers, &[]).gb_s, 0.0);
    }

    #[test]
    fn the_better_measurement_counts() {
        let speed = |gb_s| Speed { gb_s, mean_gb_s: gb_s, streams: 1, bytes: 1 };
        let a = Ceiling { anonymous: speed(2.0), mapped: speed(1.0) };
        let b = Ceiling { anonymous: speed(1.0), mapped: speed(3.0) };
        assert_eq!((a.or(b).anonymous.gb_s, a.or(b).mapped.gb_s), (2.0, 3.0));
    }
}
