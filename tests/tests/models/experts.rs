//! Routing to the experts of a mixture in a whole step: rows that a router's product and a norm come before.

use crate::groups::{FEW, MANY, ONE, TARGETS, planning_for};
use crate::invariance::backends;
use llmc_ir::interp::Interp;
use llmc_ir::{DType, Dim, Module, ParamSource, TensorType};
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_passes::Choice;
use llmc_tests::reference::relative_error;
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, prefill};
use std::ops::Range;

const VOCAB: usize = 48;
const WIDTH: usize = 64;
const EXPERTS: usize = 20;
const BUILD: BuildOptions = BuildOptions { activations: Activations::F32, kv: DType::F16, ctx: 32, keep: None };

/// Embeddings, then a norm, a router and its choice of experts, whose weights are the logits.
fn module() -> Module {
    let text = format!(
        "param table: f32[{VOCAB},{WIDTH}]
         param norm: f32[{WIDTH}]
         param router: f32[{EXPERTS},{WIDTH}]
         block embed(ids; table: f32[{VOCAB},{WIDTH}]) -> (hidden) {{
           %ids = input{{index=0, ty=i32[T]}}
           %table = param{{index=0, ty=f32[{VOCAB},{WIDTH}]}}
           %x = embed(%table, %ids)
           return %x
         }}
         block head(hidden, rows; norm: f32[{WIDTH}], router: f32[{EXPERTS},{WIDTH}]) -> (logits) {{
           %x = input{{index=0, ty=f32[T,{WIDTH}]}}
           %rows = input{{index=1, ty=i32[R]}}
           %norm = param{{index=0, ty=f32[{WIDTH}]}}
           %router = param{{index=1, ty=f32[{EXPERTS},{WIDTH}]}}
           %g = gather(%x, %rows)
           %n = rms_norm{{eps=1e-5}}(%g, %norm)
           %l = matmul(%n, %router)
           %y = route{{top=4, sigmoid=false, normalize=true, scale=1.0}}(%l)
           return %y
         }}
         call embed(table)
         call head(norm, router)
         "
    );
    llmc_ir::parse_module(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// Numbers between -1 and 1.
struct Numbers;

impl ParamSource for Numbers {
    fn ty(&self, name: &str) -> Option<TensorType> {
        let shape: &[usize] = match name {
            "table" => &[VOCAB, WIDTH],
            "router" => &[EXPERTS, WIDTH],
            _ => &[WIDTH],
        };
        Some(TensorType::new(DType::F32, shape.iter().map(|n| Dim::Const(*n))))
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> llmc_ir::Result<()> {
        let first = rows.start * if name == "norm" { 1 } else { WIDTH } + 1000 * name.len();
        let number = |i: usize| (((i * 2_654_435_761) >> 7) % 2000) as f32 / 1000.0 - 1.0;
        out.chunks_exact_mut(4).enumerate().for_each(|(i, out)| out.copy_from_slice(&number(first + i).to_le_bytes()));
        Ok(())
    }
}

#[test]
fn experts_are_what_the_graph_says() {
    let ids: Vec<i32> = (0..11).map(|i| 4 * i + 1).collect();
    let positions: Vec<i32> = (0..ids.len() as i32).collect();
    let module = module();
    let meant = Interp::new(&module, &Numbers).step(&ids, &positions, &vec![0; ids.len()], &positions).expect("runs");
    let meant = meant.as_f32().expect("logits are f32").to_vec();
    assert!(meant.chunks(EXPERTS).all(|row| row.iter().filter(|w| **w > 0.0).count() == 4));
    let check = |found: Vec<f32>, what: &str| {
        let error = relative_error(&found, &meant);
        assert!(error <= 1e-5, "{what}: {error}");
    };
    for (backend, vector_bytes) in backends() {
        let how = Planning::plain(BUILD, vector_bytes, ids.len());
        let (model, _) = Model::of(module.clone(), &Numbers, &how, EXPERTS);
        check(prefill(&mut Native::new(&model, &*backend, Pages::new(1, 1, 32), 2), 0, &ids, 3), backend.name());
    }
    for (target, variant, chunk) in [(TARGETS[0], FEW, 5), (TARGETS[0], MANY, 11), (TARGETS[1], ONE, 1)] {
        let how = planning_for(target, BUILD, Choice::default(), 64);
        let (model, _) = Model::of(module.clone(), &Numbers, &how, EXPERTS);
        let model = Model { variant, ..model };
        let mut runner = Interpreted::new(&model, Pages::new(1, 1, 32), 3, Order::Seeded(2));
        check(prefill(&mut runner, 0, &ids, chunk), target);
    }
}
