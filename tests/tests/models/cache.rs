//! The KV cache in 8-bit integers: the kernels against the graph's meaning, every code generator and every cut
//! of the work against each other.

use crate::invariance::backends;
use crate::quantized::{EDGES, ROUNDING, bits, errors};
use llmc_ir::DType;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_tests::reference::prompts;
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, meaning, prefill};
use llmc_tests::weights;
use std::path::Path;

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");

#[test]
fn kernels_read_what_the_graph_stores() {
    let build = BuildOptions { activations: Activations::F32, kv: DType::I8, ctx: 64, keep: None };
    // Several query heads for each key head, norms of heads, sliding windows, no rotary embedding.
    for name in ["llama2", "qwen3", "mistral", "gpt2"] {
        let folder = weights::model(name, "config.json", &Path::new(TEMPORARY).join("cache"));
        let ids = prompts(&weights::fixtures().join(name)).swap_remove(1).ids;
        let mut first: Option<Vec<u32>> = None;
        for (backend, vector_bytes) in backends() {
            let how = Planning::plain(build, vector_bytes, 64);
            let model = Model::new(&folder, &how);
            let pages = Pages::new(1, 1, 64);
            for (workers, chunk) in [(1, 64), (2, 5), (3, 1), (8, 13)] {
                let mut native = Native::new(&model, &*backend, pages.clone(), workers);
                let found = prefill(&mut native, 0, &ids, chunk);
                let known = first.is_some();
                let native = first.get_or_insert_with(|| bits(&found));
                assert!(bits(&found) == *native, "{name}, {}: {workers} workers, chunks of {chunk}", backend.name());
                if !known {
                    let errors = errors(&found, &meaning(&folder, &how, &ids), ids.len());
                    println!("{name}: {:.1e} to {:.1e} from the graph's meaning", errors[0], errors[errors.len() - 1]);
                    // Where sums fall on another side of the edge between two integers, one step of 127.
                    assert!(errors[0] <= ROUNDING && errors[errors.len() - 1] <= EDGES, "{name}: {errors:?}");
                }
            }
            let mut interpreted = Interpreted::new(&model, pages, 3, Order::Reverse);
            let steps = prefill(&mut interpreted, 0, &ids[..11], 4);
            let native = first.as_ref().expect("native code has run");
            assert!(bits(&steps) == native[..steps.len()], "{name}: the interpreter computes other bits");
        }
    }
}
