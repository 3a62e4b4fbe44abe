//! Steps planned for processors with tiles: on the kernel IR's interpreter, in code that uses tiles (which are emulated
//! if this machine has none), and in code that makes loops of them.

use crate::invariance::backends;
use crate::large::tied;
use crate::quantized::bits;
use half::bf16;
use llmc_ir::{DType, Dim, ParamSource, Scheme, TensorType};
use llmc_kernels::Target;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_passes::{Choice, Pruning};
use llmc_tests::SCHEMES;
use llmc_tests::reference::{Prompt, prompts};
use llmc_tests::step::{Interpreted, Model, Native, Pages, Planning, prefill};
use llmc_tests::weights;
use std::ops::Range;
use std::path::{Path, PathBuf};

const BF16: BuildOptions = BuildOptions { activations: Activations::Bf16, kv: DType::F16, ctx: 64, keep: None };

fn folder(name: &str) -> PathBuf {
    weights::model(name, "config.json", &Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiles"))
}

/// The second prompt, longer than the rows of two tiles.
fn prompt(name: &str) -> Prompt {
    prompts(&weights::fixtures().join(name)).swap_remove(1)
}

fn planning(target: &str, choice: Choice) -> Planning {
    let target = Target::from_name(target).expect("a known target");
    Planning { build: BF16, fuel: None, choice, pruning: Pruning::default(), target, vector_bytes: 64, tokens: 40 }
}

/// Logits in bits, from code for this machine.
fn native(model: &Model, ids: &[i32], workers: usize, chunk: usize) -> Vec<u32> {
    let (backend, _) = backends().swap_remove(0);
    bits(&prefill(&mut Native::new(model, &*backend, Pages::new(1, 1, 64), workers), 0, ids, chunk))
}

/// Logits in bits, from code with tiles.
fn tiled(model: &Model, ids: &[i32], workers: usize, chunk: usize) -> Vec<u32> {
    let (backend, _) = backends().swap_remove(0);
    bits(&prefill(&mut Native::with_tiles(model, &*backend, Pages::new(1, 1, 64), workers), 0, ids, chunk))
}

/// That code with tiles and code without computes these logits, by any number of workers in any chunks.
fn all_cuts_agree(model: &Model, ids: &[i32], expected: &[u32], what: &str) {
    for (workers, chunk) in CUTS {
        for (logits, code) in [(native as Logits, "without tiles"), (tiled as Logits, "with tiles")] {
            let found = logits(model, ids, workers, chunk);
            assert!(found == expected, "{what}: other bits {code}, with {workers} workers, chunks of {chunk}");
        }
    }
}

type Logits = fn(&Model, &[i32], usize, usize) -> Vec<u32>;

/// Steps of whole tiles and a part of one, of one piece of rows, of few rows, and of one.
const CUTS: [(usize, usize); 5] = [(1, 40), (2, 17), (3, 16), (2, 5), (1, 1)];

/// Elements of a row: three blocks of a tile and half a fourth.
const WIDTH: usize = 112;
/// Rows of the table: five panels.
const VOCAB: usize = 75;

/// A table of bf16: numbers of many magnitudes, so that the order of sums shows.
struct Table(Vec<bf16>);

impl Table {
    fn new() -> Table {
        let number = |i: usize| {
            let noise = (i * 2_654_435_761) >> 7;
            let magnitude = [1e-3, 1.0, 40.0, 3000.0][noise % 4];
            bf16::from_f32(((noise >> 2) % 1000) as f32 / 500.0 * magnitude - magnitude)
        };
        Table((0..VOCAB * WIDTH).map(number).collect())
    }

    fn row(&self, row: usize) -> impl Iterator<Item = f64> {
        self.0[row * WIDTH..][..WIDTH].iter().map(|v| v.to_f64())
    }
}

impl ParamSource for Table {
    fn ty(&self, _name: &str) -> Option<TensorType> {
        Some(TensorType::new(DType::Bf16, [VOCAB, WIDTH].map(Dim::from)))
    }

    fn read_rows(&self, _name: &str, rows: Range<usize>, out: &mut [u8]) -> llmc_ir::Result<()> {
        let values = &self.0[rows.start * WIDTH..rows.end * WIDTH];
        out.chunks_exact_mut(2).zip(values).for_each(|(out, v)| out.copy_from_slice(&v.to_le_bytes()));
        Ok(())
    }
}

#[test]
fn sums_of_bf16_are_the_same_in_tiles_and_without() {
    let table = Table::new();
    let (model, _) = Model::of(tied(VOCAB, WIDTH), &table, &planning("x86-64-amx", Choice::default()), VOCAB);
    let text = model.program().to_string();
    assert!(text.contains("tiles.bf16") && !text.contains("tiles.i8"));
    let ids: Vec<i32> = (0..40).map(|i| (i * 7) % VOCAB as i32).collect();
    let first = native(&model, &ids, 1, ids.len());
    all_cuts_agree(&model, &ids, &first, "bf16");
    for (i, id) in ids.iter().enumerate() {
        for other in 0..VOCAB {
            let terms = table.row(*id as usize).zip(table.row(other)).map(|(a, b)| a * b);
            let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            let found = f64::from(f32::from_bits(first[i * VOCAB + other]));
            assert!((found - exact).abs() <= 1e-6 * size, "token {i}, row {other}: {found}, exactly {exact}");
        }
    }
    for chunk in [40, 3] {
        let mut machine = Interpreted::new(&model, Pages::new(1, 1, 64), 2, Order::Seeded(4));
        let found = bits(&prefill(&mut machine, 0, &ids, chunk));
        assert!(found == first, "the interpreter has other bits in chunks of {chunk}");
    }
}

#[test]
fn sums_of_integers_are_those_of_every_processor() {
    let prompt = prompt("qwen2");
    for scheme in SCHEMES {
        let plan = |target: &str| Model::new(&folder("qwen2"), &planning(target, Choice::of(scheme)));
        let (tiles, plain) = (plan("x86-64-amx"), plan("x86-64-v4"));
        let whole_rows = matches!(scheme, Scheme::W8A8 | Scheme::W4);
        assert_eq!(tiles.program().to_string().contains("tiles.i8"), whole_rows, "{scheme}");
        assert!(!plain.program().to_string().contains("tiles."), "{scheme}");
        let expected = native(&plain, &prompt.ids, 1, prompt.ids.len());
        all_cuts_agree(&tiles, &prompt.ids, &expected, &scheme.to_string());
        let ids = &prompt.ids[..18];
        let mut machine = Interpreted::new(&tiles, Pages::new(1, 1, 64), 2, Order::Seeded(4));
        let found = bits(&prefill(&mut machine, 0, ids, 18));
        assert!(found == expected[..found.len()], "{scheme}: the interpreter has other bits");
    }
}
