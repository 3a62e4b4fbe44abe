//! No heap allocation per token: counted over decode steps with sampling and stop strings.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use llmc_rt::engine::{Options, Rows};
use llmc_rt::sampler::{Sampler, Sampling};
use llmc_rt::stop::StopStrings;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decoding_allocates_nothing() {
    let mut engine = support::engine(Options { threads: Some(3), ..Default::default() }).expect("fits");
    let sampling = Sampling { temperature: 0.8, top_k: 20, top_p: 0.9, min_p: 0.01, repeat_penalty: 1.1, seed: 1 };
    let mut sampler = Sampler::new(sampling, support::VOCAB);
    let mut stop = StopStrings::new(&["never seen".into()]);
    let mut out = String::with_capacity(4096);
    let logits = engine.prefill(0, &[1, 2, 3], 0, || Ok(())).expect("fits");
    let mut token = sampler.sample(logits).expect("usable");
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..47 {
        sampler.observe(token);
        token = sampler.sample(engine.extend(0, &[token], Rows::Last).expect("fits")).expect("usable");
        stop.push("some text nev", &mut out);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
    drop(vec![1u8; 10]);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before, "the counter counts");
}
