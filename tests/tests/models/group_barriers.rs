//! What a group waits for is needed: without any one barrier or wait of a step, the interpreter finds a race
//! or a read of what was not written, or the step computes something else.

use crate::groups::{self, MANY, ONE, TARGETS, folder, planning_for};
use llmc_abi::manifest::Keep;
use llmc_abi::step::Sampling;
use llmc_ir::{DType, Scheme};
use llmc_kernels::kir::Program;
use llmc_kernels::kir::interp::Order;
use llmc_models::{Activations, BuildOptions};
use llmc_passes::Choice;
use llmc_tests::step::{Interpreted, Model, Pages, Step};
use llmc_tests::waits::{Site, sites, without};
use std::collections::BTreeMap;

/// A step, and how many workers run it in what order.
struct Try {
    step: Step,
    workers: usize,
    order: Order,
}

impl Try {
    /// Tokens that come after pages of others.
    fn new(tokens: usize, workers: usize, order: Order) -> Try {
        let ids: Vec<i32> = (0..tokens as i32).map(|i| 7 * i + 3).collect();
        Try { step: Step::of(0, START, &ids), workers, order }
    }

    /// What the step computes: bits of logits, and the tokens chosen.
    fn run(&self, model: &Model) -> Result<(Vec<u32>, Vec<i32>), String> {
        let mut runner = Interpreted::new(model, Pages::new(1, 1, CTX), self.workers, self.order);
        // Noise moves the choice out of what is kept, so that the best token there is looked for; the form for many
        // tokens chooses none.
        let choose = i64::from(model.variant != MANY);
        runner.sampling = Sampling { temperature: 100.0, top_k: 5, top_p: 0.5, choose, ..Sampling::NONE };
        let logits = runner.try_step(&self.step).map_err(|e| e.to_string())?;
        Ok((logits.iter().map(|v| v.to_bits()).collect(), runner.chosen))
    }
}

/// Positions: the cache has several chunks of pages.
const CTX: usize = 256;
/// Position of a step's first token: behind whole chunks of pages, which hold zeros.
const START: usize = 150;

/// Rows of bf16 and a cache of binary16.
const BUILD: BuildOptions = BuildOptions { activations: Activations::Bf16, kv: DType::F16, ctx: CTX, keep: None };

/// A variant of a fixture's step for a target, in groups of `threads` threads.
fn planned(fixture: &str, threads: usize, (target, variant): (&str, usize)) -> Model {
    Model { variant, ..Model::new(&folder(fixture), &planning_for(target, BUILD, Choice::default(), threads)) }
}

/// A kernel's block and kind, and its number among those: what its name says but for numbers of nodes.
fn label(program: &Program, kernel: &str) -> String {
    let plain = |name: &str| {
        let words =
            name.trim_start_matches("llmc_").split('_').filter(|w| !["cuda", "tiles", "one", "sm", "90a"].contains(w));
        let words: Vec<&str> = words.filter(|w| w.parse::<usize>().is_err()).collect();
        words.join("_").replacen('_', " ", 1)
    };
    let own = plain(kernel);
    let before = program.functions.iter().take_while(|f| f.name != kernel).filter(|f| plain(&f.name) == own);
    format!("{own} {}", before.count())
}

/// The sites without which every try goes as with them.
fn survivors(model: &mut Model, tries: &[Try]) -> Vec<Site> {
    survivors_of(model, tries, |_| true)
}

/// Those of some kernels.
fn survivors_of(model: &mut Model, tries: &[Try], of: impl Fn(&str) -> bool) -> Vec<Site> {
    let all = model.program().clone();
    let expected: Vec<_> = tries.iter().map(|t| t.run(model).expect("the step runs")).collect();
    let mut left = sites(&all);
    left.retain(|site| of(&site.kernel));
    left.retain(|site| {
        model.plan.variants[model.variant].program = without(&all, site);
        tries.iter().zip(&expected).all(|(t, expected)| t.run(model).as_ref() == Ok(expected))
    });
    left
}

/// Without any site but the spare ones a step fails or computes something else.
fn check(model: &mut Model, tries: &[Try], spare: Spare) {
    let all = model.program().clone();
    let mut found = BTreeMap::<String, Vec<usize>>::new();
    for site in survivors(model, tries) {
        println!("{}: {} {} of {}", label(&all, &site.kernel), site.op, site.number, site.kernel);
        found.entry(label(&all, &site.kernel)).or_default().push(site.number);
    }
    let spare = spare.iter().map(|(kernel, numbers)| ((*kernel).into(), numbers.to_vec())).collect();
    assert_eq!(found, spare, "sites that are not needed, and those that are known to be spare");
}

/// Sites that may go one at a time without a step noticing: kernel, numbers. They stay for what a kernel cannot
/// know of those around it, or for steps that the tries are not.
type Spare = &'static [(&'static str, &'static [usize])];

/// Rows are written with a warp's barrier behind, which a wider barrier follows wherever no thread of the warp
/// reads them: at the end of rows of the rope table, of sums, of rotated heads, of epilogues. What begins a
/// product or the choice of a token waits for the last use of the group's memory, be it in another kernel, whose
/// own last barrier does the same. The last barrier ends the step.
///
/// The loop over a tile's rounds does not run where a warp has one (linear 4, 5; qkv 4, 5, 11, 12, 18, 19); what asks
/// for weights waits for the group, whose memory theirs does not touch in a model this small.
const FEW: Spare = &[
    ("embed rope_table 0", &[0]),
    // Sums and their norm's rows end with a warp's barrier: 9, 16, 23; heads' rows 27, 30, 31 are stored last.
    ("layer0 qkv 0", &[0, 4, 5, 9, 11, 12, 16, 18, 19, 23, 27, 30, 31]),
    ("layer0 qkv_ahead 0", &[0]),
    // Queries and weights that the group's barriers at an item's end protect too: 0, 5, 8; rows of a head that
    // no thread of the warp reads: 7, 10; 11 where the next item begins with the warp's own memory.
    ("layer0 attention 0", &[0, 5, 7, 8, 10, 11]),
    // Sums that the same thread adds to what it stores: 7; stored rows: 8.
    ("layer0 linear 0", &[0, 7, 8]),
    ("layer0 linear 1", &[0, 10]),
    ("layer0 linear 2", &[0, 7, 8]),
    ("layer0 linear_ahead 0", &[0]),
    ("layer0 linear_ahead 1", &[0]),
    ("layer0 linear_ahead 2", &[0]),
    ("head linear 0", &[0, 4, 5, 9, 10]),
    ("head linear_ahead 0", &[0]),
    // Between the choices of two rows the workers' counter is a barrier too.
    ("head sample 0", &[0]),
    ("step 0", &[8]),
];

#[test]
fn few_tokens() {
    let tries = [Try::new(2, 3, Order::Forward), Try::new(1, 1, Order::Reverse), Try::new(8, 2, Order::Reverse)];
    check(&mut planned("qwen3", 64, (TARGETS[0], groups::FEW)), &tries, FEW);
}

/// As [`FEW`], for a token alone whose weights the copy engine copies: no place is taken twice in a model this small,
/// so that the barrier before its reuse is spare too (`kernels/tests/group_products.rs` has products that need it).
const ALONE: Spare = &[
    ("embed rope_table 0", &[0]),
    ("layer0 qkv 0", &[0, 1, 4, 5, 7, 9, 11, 12, 14, 16, 18, 19, 21, 23, 27, 30, 31]),
    ("layer0 qkv_ahead 0", &[0]),
    ("layer0 attention 0", &[0, 5, 7, 8, 10, 11]),
    ("layer0 linear 0", &[0, 3, 5, 7, 8, 9]),
    ("layer0 linear 1", &[0, 1, 5, 7, 10]),
    ("layer0 linear 2", &[0, 3, 5, 7, 8, 9]),
    ("layer0 linear_ahead 0", &[0]),
    ("layer0 linear_ahead 1", &[0]),
    ("layer0 linear_ahead 2", &[0]),
    ("head linear 0", &[0, 1, 4, 5, 7, 9, 10]),
    ("head linear_ahead 0", &[0]),
    ("head sample 0", &[0]),
    ("step 0", &[8]),
];

#[test]
fn one_token() {
    let tries = [Try::new(1, 3, Order::Forward), Try::new(1, 2, Order::Reverse)];
    check(&mut planned("qwen3", 64, (TARGETS[1], ONE)), &tries, ALONE);
}

/// As [`FEW`]. A product's tiles begin with a barrier that the one at their end makes up for, and the other way
/// round; the wait for all copies behind the last multiplication finds groups of none; of rows behind the tokens
/// there are none to keep. Rows that a worker has embedded are those that it normalizes.
const TILES: Spare = &[
    ("embed rope_table 0", &[0]),
    ("layer0 qkv 0", &[0, 2, 5, 9, 11, 12, 13, 14, 15, 18, 22, 24, 25, 26, 27, 28, 31, 34, 36, 37, 38]),
    ("layer0 attention 0", &[0, 3]),
    ("layer0 linear 0", &[0, 2, 5, 9, 10]),
    ("layer0 linear 1", &[0, 2, 5, 9, 10]),
    ("layer0 linear 2", &[0, 3, 7, 8]),
    ("head linear 0", &[0, 2, 5, 9, 10]),
    ("step 0", &[0, 7]),
];

#[test]
fn many_tokens() {
    check(&mut planned("llama3-rope", 256, (TARGETS[0], MANY)), &[Try::new(12, 2, Order::Forward)], TILES);
}

/// As [`TILES`] where the matrix units of four warps work together; no fence is spare. Sums take the place of the first
/// two of four steps: where the last one is none of these, the barrier behind the multiplications is spare too.
const TILES_OF_FOUR: Spare = &[
    ("embed rope_table 0", &[0]),
    ("layer0 qkv 0", &[0, 2, 6, 10, 11, 12, 13, 14, 15, 16, 20, 24, 25, 26, 27, 28, 29, 30, 34, 37, 38, 39, 40, 41]),
    ("layer0 attention 0", &[0, 3]),
    ("layer0 linear 0", &[0, 2, 6, 10, 11]),
    ("layer0 linear 1", &[0, 2, 6, 10, 11]),
    ("layer0 linear 2", &[0, 4, 5, 8, 9]),
    ("head linear 0", &[0, 2, 6, 10, 11]),
    ("step 0", &[0, 7]),
];

#[test]
fn many_tokens_of_four_warps() {
    let mut model = planned("llama3-rope", 256, (TARGETS[1], MANY));
    assert!(model.program().to_string().contains("wgmma.bf16"));
    check(&mut model, &[Try::new(12, 2, Order::Forward)], TILES_OF_FOUR);
}

/// As [`TILES`] where weights are looked up in a table, before which products have a barrier more: it also parts the rows
/// that a worker gathers from its norms of them.
const TILES_OF_LEVELS: Spare = &[
    ("embed rope_table 0", &[0]),
    ("layer0 qkv 0", &[0, 1, 3, 6, 10, 12, 13, 14, 15, 16, 19, 23, 25, 26, 27, 28, 29, 32, 35, 37, 38, 39]),
    ("layer0 attention 0", &[0, 4]),
    ("layer0 linear 0", &[0, 1, 3, 6, 10, 11]),
    ("layer0 linear 1", &[0, 1, 3, 6, 10, 11]),
    ("layer0 linear 2", &[0, 1, 4, 8, 9]),
    ("head linear 0", &[0, 1, 3, 6, 10, 11]),
    ("step 0", &[0, 6, 7]),
];

/// The same with weights that are looked up in a table and a cache of bytes that become binary16.
#[test]
fn many_tokens_in_few_bits() {
    let (build, choice) = (BuildOptions { kv: DType::I8, ..BUILD }, Choice::of(Scheme::Nf4 { group: 64 }));
    let how = planning_for(TARGETS[0], build, choice, 256);
    let mut model = Model { variant: MANY, ..Model::new(&folder("llama3-rope"), &how) };
    check(&mut model, &[Try::new(12, 2, Order::Forward)], TILES_OF_LEVELS);
}

/// As [`FEW`] in attention where pages are forgotten. A warp's queries are turned for each page: the barriers behind what a
/// thread copies for that (2) and behind the last head turned (4) are needed. That behind the first head (3) is not, nor
/// behind queries that each thread copies again (1), nor behind a page whose weights the next one's turns come before (6).
#[test]
fn pages_that_are_kept() {
    let keep = Some(Keep { sinks: 1, window: 2, by_use: false });
    let how = planning_for(TARGETS[0], BuildOptions { keep, ..BUILD }, Choice::default(), 64);
    let mut model = Model { variant: groups::FEW, ..Model::new(&folder("llama3-rope"), &how) };
    let tries = [Try::new(2, 3, Order::Forward), Try::new(1, 1, Order::Reverse)];
    let survivors = survivors_of(&mut model, &tries, |kernel| kernel.ends_with("_attention"));
    let spare: Vec<usize> = survivors.iter().map(|s| s.number).collect();
    assert_eq!(spare, [0, 1, 3, 6, 8, 10, 11, 12, 13]);
}
