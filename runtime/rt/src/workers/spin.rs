//! How long a thread watches a word before it sleeps.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::sys::futex;

/// Longest time that a thread spins where every worker has a CPU of its own: as long as a token is chosen between two
/// steps, since a thread that sleeps is woken late.
const SPIN: Duration = Duration::from_micros(200);
/// Pauses between two looks at the clock.
const PAUSES: u32 = 32;

/// Waits for a word to change: spins, then sleeps. Counts sleepers, so that a change costs a system
/// call only where someone sleeps.
#[derive(Debug)]
pub struct Waiter {
    spin: Duration,
}

impl Waiter {
    /// A waiter that spins, or one that sleeps at once because CPUs are shared.
    pub fn new(spinning: bool) -> Self {
        Self { spin: if spinning { SPIN } else { Duration::ZERO } }
    }

    /// Returns once `word` no longer holds `old`.
    pub fn wait(&self, word: &AtomicU32, old: u32, sleepers: &AtomicU32) {
        if self.spin_while(word, old) {
            return;
        }
        sleepers.fetch_add(1, Ordering::SeqCst);
        while word.load(Ordering::SeqCst) == old {
            futex::wait(word, old);
        }
        sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Spins; true once the word changed.
    fn spin_while(&self, word: &AtomicU32, old: u32) -> bool {
        if word.load(Ordering::Acquire) != old {
            return true;
        }
        if self.spin.is_zero() {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < self.spin {
            for _ in 0..PAUSES {
                std::hint::spin_loop();
                if word.load(Ordering::Acquire) != old {
                    return true;
                }
            }
        }
        false
    }

    /// Changes `word` by one and wakes who sleeps on it.
    pub fn signal(word: &AtomicU32, sleepers: &AtomicU32) {
        // Sequential consistency orders the change before the look at the sleepers; a waiter counts
        // itself before its last look at the word. So one of the two sees the other.
        word.fetch_add(1, Ordering::SeqCst);
        if sleepers.load(Ordering::SeqCst) > 0 {
            futex::wake_all(word);
        }
    }
}
