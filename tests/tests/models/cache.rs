//! The KV cache in bytes: the kernels against the graph's meaning, every code generator and every cut
//! of the work against each other.

use crate::invariance::{backends, same_in_every_cut};
use crate::quantized::{EDGES, ROUNDING, bits, errors};
use llmc_ir::DType;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_tests::reference::prompts;
use llmc_tests::step::{Interpreted, Model, Pages, Planning, meaning, prefill};
use llmc_tests::weights;
use std::path::Path;

const TEMPORARY: &str = env!("CARGO_TARGET_TMPDIR");

#[test]
fn kernels_read_what_the_graph_stores() {
    [DType::I8, DType::E4m3].into_iter().for_each(read_what_is_stored);
}

fn read_what_is_stored(kv: DType) {
    let build = BuildOptions { activations: Activations::F32, kv, ctx: 64, keep: None };
    // Several query heads for each key head, norms of heads, sliding windows, no rotary embedding.
    for name in ["llama2", "qwen3", "mistral", "gpt2"] {
        let folder = weights::model(name, "config.json", &Path::new(TEMPORARY).join("cache"));
        let ids = prompts(&weights::fixtures().join(name)).swap_remove(1).ids;
        let mut first: Option<Vec<u32>> = None;
        for (backend, vector_bytes) in backends() {
            let how = Planning::plain(build, vector_bytes, 64);
            let model = Model::new(&folder, &how);
            let pages = Pages::new(1, 1, 64);
            let cuts = [(1, 64), (2, 5), (3, 1), (8, 13)];
            let known = first.is_some();
            same_in_every_cut((&model, &*backend, &pages), &ids, &cuts, &mut first, name);
            if let (false, Some(found)) = (known, &first) {
                let found: Vec<f32> = found.iter().copied().map(f32::from_bits).collect();
                let errors = errors(&found, &meaning(&folder, &how, &ids), ids.len());
                println!(
                    "{name}, {kv}: {:.1e} to {:.1e} from the graph's meaning",
                    errors[0],
                    errors[errors.len() - 1]
                );
                // Where sums fall on another side of the edge between two numbers, one step.
                assert!(errors[0] <= ROUNDING && errors[errors.len() - 1] <= EDGES, "{name}, {kv}: {errors:?}");
            }
            let mut interpreted = Interpreted::new(&model, pages, 3, Order::Reverse);
            let steps = prefill(&mut interpreted, 0, &ids[..11], 4);
            let native = first.as_ref().expect("native code has run");
            assert!(bits(&steps) == native[..steps.len()], "{name}: the interpreter computes other bits");
        }
    }
}
