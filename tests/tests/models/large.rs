//! Weights past 2^31 elements and 2^32 bytes: an embedding that is also the head.

use crate::invariance::backends;
use llmc_kernels::WeightFormat;
use llmc_kernels::layout::PANEL;
use llmc_lower::weights::PackLayout;
use llmc_models::{Activations, BuildOptions};
use llmc_tests::step::{Model, Native, Planning, Runner, Step};
use std::collections::BTreeMap;

const WIDTH: usize = 4096;
/// Rows of the embedding: the last panel lies behind 2^31 elements.
const VOCAB: usize = (1 << 31) / WIDTH + PANEL;

/// An embedding in bf16 that is also the head.
pub fn tied(vocab: usize, width: usize) -> llmc_ir::Module {
    let text = format!(
        "param table: bf16[{vocab},{width}]
         block embed(ids; table: bf16[{vocab},{width}]) -> (hidden) {{
           %ids = input{{index=0, ty=i32[T]}}
           %table = param{{index=0, ty=bf16[{vocab},{width}]}}
           %x = embed(%table, %ids)
           return %x
         }}
         block head(hidden, rows; table: bf16[{vocab},{width}]) -> (logits) {{
           %x = input{{index=0, ty=f32[T,{width}]}}
           %rows = input{{index=1, ty=i32[R]}}
           %table = param{{index=0, ty=bf16[{vocab},{width}]}}
           %g = gather(%x, %rows)
           %r = round{{dtype=bf16}}(%g)
           %y = matmul(%r, %table)
           return %y
         }}
         call embed(table)
         call head(table)
         "
    );
    llmc_ir::parse_module(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// Element k of a row: small integers, so that every sum is exact.
fn element(row: usize, k: usize) -> f32 {
    ((row + 3 * k) % 5) as f32 - 2.0
}

/// The same bits as bf16.
fn bits(v: f32) -> [u8; 2] {
    ((v.to_bits() >> 16) as u16).to_le_bytes()
}

#[test]
fn weights_past_2_to_the_31_elements() {
    let rows = [0, 1, VOCAB / 2 + 5, VOCAB - PANEL - 1, VOCAB - PANEL, VOCAB - 1];
    for (backend, vector_bytes) in backends() {
        let build = BuildOptions { activations: Activations::Bf16, kv: llmc_ir::DType::F16, ctx: 32, keep: None };
        let how = Planning::plain(build, vector_bytes, rows.len());
        let model = Model::without_weights(&mut tied(VOCAB, WIDTH), &how, VOCAB);
        let item = &model.plan.weights.items[0].item;
        assert!(matches!(item.layout, PackLayout::Panels { format: WeightFormat::Bf16, k: WIDTH, .. }));
        let mut runner = Native::sparse(&model, &*backend, 2, |weights| {
            for row in rows {
                for k in 0..WIDTH {
                    let at = item.offset + WeightFormat::Bf16.offset(row, k, WIDTH);
                    weights.slice(at, 2).copy_from_slice(&bits(element(row, k)));
                }
            }
        });
        let ids: Vec<i32> = rows.iter().map(|r| *r as i32).collect();
        let logits = runner.step(&Step::of(0, 0, &ids));
        for (i, row) in rows.into_iter().enumerate() {
            let found: BTreeMap<usize, f32> = nonzero(&logits[i * VOCAB..][..VOCAB]);
            let product = |other: usize| (0..WIDTH).map(|k| element(row, k) * element(other, k)).sum::<f32>();
            let expected: BTreeMap<usize, f32> =
                rows.into_iter().map(|other| (other, product(other))).filter(|(_, v)| *v != 0.0).collect();
            assert_eq!(found, expected, "{}: logits of row {row}", backend.name());
        }
    }
}

fn nonzero(logits: &[f32]) -> BTreeMap<usize, f32> {
    logits.iter().copied().enumerate().filter(|(_, v)| *v != 0.0).collect()
}
