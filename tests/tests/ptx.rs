//! The machine code that NVIDIA's assembler makes of steps for GPUs, looked at without one; skipped where there
//! is no assembler.
#![cfg(feature = "llvm")]

use llmc::Options;
use llmc::options::Kv;
use llmc::progress::Progress;
use llmc_ir::Scheme;
use llmc_ptxas::{Assembled, Disassembler, Function, KernelReport, Loop, Tool, functions};
use llmc_tests::cuda_tools::{assembler, disassembler};
use llmc_tests::weights;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// GPU generations; the one with a letter runs what is tuned to it.
const ARCHS: [&str; 4] = ["sm_80", "sm_89", "sm_90a", "sm_120"];
/// Bytes of shared memory that barriers take beside what kernels use.
const OF_BARRIERS: usize = 1024;

/// Bytes of stack, spill stores and spill loads of a kernel.
type Spills = [u32; 3];

/// Forms for few tokens or one that spill, by a little and outside of inner loops: what the assembler was measured to
/// do where 255 registers do not suffice. All others have no stack and spill nothing.
const FEW_SPILL: [(&str, &str, &str, Spills); 12] = [
    ("tinywiki", "plain", "sm_120", [32, 32, 32]),
    ("qwen3", "plain", "sm_120", [40, 40, 40]),
    ("llama3-rope", "plain", "sm_120", [40, 40, 40]),
    ("tinywiki", "int4(32)", "sm_120", [56, 60, 68]),
    ("tinywiki", "int4(32)", "sm_90a", [8, 4, 4]),
    ("tinywiki", "w8a8", "sm_120", [96, 92, 92]),
    ("tinywiki", "w4", "sm_120", [64, 60, 60]),
    ("tinywiki", "w4", "sm_90a", [8, 4, 8]),
    ("tinywiki", "fp8", "sm_120", [40, 40, 44]),
    ("tinywiki", "nf4(64)", "sm_120", [32, 32, 36]),
    ("llama2", "plain", "sm_120", [8, 4, 4]),
    ("tinywiki", "plain kv8", "sm_120", [128, 128, 128]),
];
/// The most that a form for many tokens was measured to spill, by the scheme of its weights: tiles hold 128 sums in
/// registers, and beside them where each thread copies from, and sums of groups with scales.
const TILES_SPILL: [(&str, Spills); 7] = [
    ("plain", [296, 356, 724]),
    ("plain kv8", [208, 244, 412]),
    ("int4(32)", [608, 1456, 1956]),
    ("w8a8", [280, 296, 488]),
    ("w4", [312, 384, 832]),
    ("fp8", [168, 180, 272]),
    ("nf4(64)", [232, 372, 768]),
];

/// The same where the matrix units of four warps work together.
const WIDE_SPILL: [(&str, Spills); 7] = [
    ("plain", [168, 180, 192]),
    ("plain kv8", [48, 44, 44]),
    ("int4(32)", [240, 536, 824]),
    ("w8a8", [152, 160, 160]),
    ("w4", [184, 208, 252]),
    ("fp8", [40, 40, 76]),
    ("nf4(64)", [168, 280, 560]),
];

/// A model in the form that it is compiled in.
#[derive(Clone, Copy, Debug)]
struct Case {
    fixture: &'static str,
    scheme: Option<Scheme>,
    kv: Kv,
}

impl Case {
    /// As it is, or in a scheme.
    fn plain(fixture: &'static str, scheme: Option<Scheme>) -> Case {
        Case { fixture, scheme, kv: Kv::F16 }
    }

    fn scheme_name(self) -> String {
        let name = self.scheme.map_or("plain".into(), |s| s.to_string());
        if self.kv == Kv::Int8 { name + " kv8" } else { name }
    }

    /// Whether products are of bf16.
    fn is_bf16(self) -> bool {
        self.scheme.is_none_or(|s| s.is_float()) && self.fixture != "gpt2"
    }

    /// Whether heads are of a width that attention's tiles have.
    fn has_attention_tiles(self) -> bool {
        self.fixture != "qwen3"
    }
}

/// A form of a step in PTX.
struct Form {
    case: Case,
    /// Whether it is for many tokens.
    tiles: bool,
    /// Whether it is for one.
    one: bool,
    /// Whether it is tuned to a generation.
    tuned: bool,
    /// Bytes of shared memory that a launch adds.
    shared: usize,
    /// What it may have.
    most: usize,
    text: String,
}

/// The folder of a fixture, whose weights may be a recipe.
fn folder(name: &str) -> PathBuf {
    let from = weights::fixtures().join(name);
    match from.join("weights.json").exists() {
        true => weights::model(name, "config.json", &Path::new(env!("CARGO_TARGET_TMPDIR")).join("ptx")),
        false => from,
    }
}

/// Every form of a model's step.
fn forms(case: Case) -> Vec<Form> {
    let options = Options {
        targets: vec!["cuda".into()],
        quantize: case.scheme,
        kv: case.kv,
        ..Options::new(folder(case.fixture))
    };
    let front = llmc::compile::front(&options, &Progress::Quiet).unwrap_or_else(|e| panic!("{case:?}: {e}"));
    let plan = llmc::compile::plan(&front, &options).unwrap_or_else(|e| panic!("{case:?}: {e}"));
    let backend = options.backend().expect("LLVM is built in");
    let mut all = Vec::new();
    for (i, variant) in plan.variants.iter().enumerate() {
        for (target, program) in variant.programs() {
            let text = backend.asm_text(program, target).unwrap_or_else(|e| panic!("{case:?}: {e}"));
            let (shared, most) = (program.shared_bytes(), target.shared_bytes() + OF_BARRIERS);
            let tuned = target.name != variant.target.name;
            all.push(Form { case, tiles: i == 1, one: i == 2, tuned, shared, most, text });
        }
    }
    assert_eq!(all.len(), FORMS, "{case:?}");
    all
}

/// The forms of a step: for few tokens, many and one, each for all generations and tuned.
const FORMS: usize = 6;

impl Form {
    /// What messages call it.
    fn name(&self, arch: &str) -> String {
        let tokens = match (self.tiles, self.one) {
            (true, _) => "many tokens",
            (_, true) => "one token",
            _ => "few tokens",
        };
        format!("{} {}, {tokens}, {arch}", self.case.fixture, self.case.scheme_name())
    }

    /// The generations it is assembled for: all that run it where nothing is quantized; else the oldest, and for
    /// the widest model the newest and the one that it is tuned to.
    fn archs(&self) -> impl Iterator<Item = &'static str> {
        let some: &[&str] = match (self.case.scheme, self.case.fixture) {
            (None, _) => &ARCHS,
            (_, "tinywiki") => &["sm_80", "sm_90a", "sm_120"],
            _ => &["sm_80"],
        };
        ARCHS.into_iter().filter(move |a| a.ends_with('a') == self.tuned && some.contains(a))
    }

    /// Whether its instructions are looked at: where it is for the oldest, or few tokens' and tuned.
    fn is_read(&self, arch: &str) -> bool {
        arch == ARCHS[0] || self.tuned && (self.tiles || self.case.scheme.is_none())
    }

    /// What it may spill.
    fn budget(&self, arch: &str) -> Spills {
        let (fixture, scheme) = (self.case.fixture, self.case.scheme_name());
        if self.tiles && self.tuned {
            let known = WIDE_SPILL.iter().find(|(s, _)| *s == scheme);
            return known.map_or([0; 3], |(_, spills)| *spills);
        }
        if self.tiles {
            return TILES_SPILL.iter().find(|(s, _)| *s == scheme).map_or([0; 3], |(_, spills)| *spills);
        }
        let known = FEW_SPILL.iter().find(|(f, s, a, _)| *f == fixture && *s == scheme && *a == arch);
        known.map_or([0; 3], |k| k.3)
    }

    /// What is wrong with the assembler's report.
    fn of_report(&self, kernel: &KernelReport, arch: &str) -> Vec<String> {
        let [stack, stores, loads] = self.budget(arch);
        let limits = [
            (kernel.registers, 255, "registers"),
            (kernel.shared_bytes + self.shared as u32, self.most as u32, "bytes of shared memory"),
            (kernel.stack_bytes, stack, "bytes of stack"),
            (kernel.spill_stores, stores, "bytes of spill stores"),
            (kernel.spill_loads, loads, "bytes of spill loads"),
        ];
        let over = limits.iter().filter(|(found, limit, _)| found > limit);
        over.map(|(found, limit, what)| format!("{found} {what}, at most {limit} are allowed")).collect()
    }

    /// Instructions that it must have: products of matrices; weights by wide loads past what stores see, or by
    /// copies to shared memory; and in tiles, such copies and loads of fragments.
    fn required(&self) -> Vec<&'static [&'static str]> {
        let (case, mut all) = (self.case, Vec::<&[&str]>::new());
        let wide = self.tuned && self.tiles;
        let together = wide && !matches!(case.scheme, Some(Scheme::Nf4 { .. }));
        all.extend(case.is_bf16().then_some(if together { &["HGMMA.64x128x16.F32.BF16"][..] } else { &["HMMA"] }));
        let is_integer = case.scheme.is_some_and(|s| !s.is_float());
        all.extend(is_integer.then_some(if wide { &["IGMMA.64x128x32.S8.S8"][..] } else { &["IMMA"] }));
        all.push(match self.tiles || !(case.is_bf16() || is_integer) {
            true => &["LDG.64.CONSTANT", "LDG.128.CONSTANT"],
            false if self.tuned => &["UBLKCP"],
            false => &["LDGSTS.E.BYPASS.128"],
        });
        if self.tiles && (case.is_bf16() || case.has_attention_tiles()) {
            all.push(&["LDGSTS"]);
        }
        if self.tiles && case.has_attention_tiles() {
            all.push(&["LDSM"]);
        }
        all
    }

    /// What is wrong with machine code.
    fn of_code(&self, code: &Function<'_>) -> Vec<String> {
        let required = self.required().into_iter();
        let missing = required.filter(|any| any.iter().all(|p| code.count(p) == 0));
        let mut wrong: Vec<String> = missing.map(|any| format!("no {}", any.join(" or "))).collect();
        if !self.tiles {
            let bodies = inner_loops(code).into_iter().flat_map(|l| code.body(&code.loops()[l]).to_vec());
            let local = bodies.filter(|i| i.is("LDL") || i.is("STL")).count();
            wrong.extend((local > 0).then(|| format!("{local} x LDL or STL in inner loops")));
        }
        wrong
    }
}

/// Loops of a kernel that have no other inside: their numbers in [`Function::loops`].
fn inner_loops(code: &Function<'_>) -> Vec<usize> {
    let loops = code.loops();
    let within = |a: &Loop, b: &Loop| a != b && a.range.start >= b.range.start && a.range.end <= b.range.end;
    (0..loops.len()).filter(|i| !loops.iter().any(|l| within(l, &loops[*i]))).collect()
}

/// What is wrong with one form's machine code for one generation.
fn problems(form: &Form, arch: &'static str, (tool, disassembler): (&Tool, Option<&Disassembler>)) -> Vec<String> {
    let made: Assembled = match tool.assemble(&form.text, arch) {
        Ok(made) => made,
        Err(e) => return vec![e.to_string()],
    };
    let mut found: Vec<String> = made.warnings.iter().map(|w| format!("warning: {w}")).collect();
    let [kernel] = &made.kernels[..] else { return vec![format!("{} kernels", made.kernels.len())] };
    found.extend(form.of_report(kernel, arch));
    let read = disassembler.filter(|_| form.is_read(arch));
    let sass = read.map(|d| d.sass(&made.cubin).unwrap_or_else(|e| panic!("{e}")));
    for code in sass.iter().flat_map(|s| functions(s)).filter(|f| f.name == kernel.name) {
        found.extend(form.of_code(&code));
    }
    println!("{}: {kernel:?}", form.name(arch));
    found.iter().map(|f| format!("{}: {f}", form.name(arch))).collect()
}

/// What is wrong with a model's steps.
fn of_case(case: Case, tools: (&Tool, Option<&Disassembler>)) -> Vec<String> {
    let forms = forms(case);
    let each = forms.iter().flat_map(|f| f.archs().map(move |a| (f, a)));
    each.flat_map(|(form, arch)| problems(form, arch, tools)).collect()
}

/// Every model as it is and in the schemes, in an order that ends with the short ones.
fn cases() -> Vec<Case> {
    let schemes = [None, Some(Scheme::Int4 { group: 32 }), Some(Scheme::W8A8), Some(Scheme::W4)];
    let fixtures = ["gpt2", "llama3-rope", "qwen3", "tinywiki"];
    let all = schemes.iter().rev().flat_map(|scheme| fixtures.map(|fixture| Case::plain(fixture, *scheme)));
    // Codes for floats, a checkpoint in binary16, and a cache of bytes.
    let floats = [Scheme::Fp8, Scheme::Nf4 { group: 64 }].map(|s| Case::plain("tinywiki", Some(s)));
    let bytes = Case { kv: Kv::Int8, ..Case::plain("tinywiki", None) };
    floats.into_iter().chain([Case::plain("llama2", None), bytes]).chain(all).collect()
}

#[test]
fn steps_are_what_the_assembler_should_make_of_them() {
    let Some(tool) = assembler() else { return };
    let disassembler = disassembler();
    let (left, found) = (Mutex::new(cases()), Mutex::new(Vec::new()));
    let next = || left.lock().expect("no thread has failed").pop();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let wrong = of_case(case, (&tool, disassembler.as_ref()));
                    found.lock().expect("no thread has failed").extend(wrong);
                }
            });
        }
    });
    let found = found.into_inner().expect("no thread has failed");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
