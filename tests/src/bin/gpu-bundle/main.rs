//! Compiles what `gpu-check` checks and measures: fixtures with what they should compute, layers of real shapes with what a
//! CPU here computes of made-up weights, whole shapes without any, and kernels by themselves.

mod kernels;

use gpu_check::bundle::{self, Bundle, Speed};
use llmc::options::{Activations, CtxPolicy, Kv};
use llmc::payload::Payload;
use llmc::progress::Progress;
use llmc::{Options, compile, manifest};
use llmc_abi::device::DeviceKind;
use llmc_ir::interp::Interp;
use llmc_ir::quant::Scheme;
use llmc_kernels::Target;
use llmc_link::PayloadSource;
use llmc_lower::Plan;
use llmc_tests::reference::{Prompt, prompts};
use llmc_tests::step::{Model, Native, Pages, prefill};
use llmc_tests::{SCHEMES, amx, cuda_tools, weights};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Fixtures with references.
const FIXTURES: [&str; 10] = [
    "llama2",
    "llama3-rope",
    "llama-bias",
    "llama-linear-rope",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen2-sliding",
    "qwen3",
    "gpt2",
];
/// Those whose rows are rounded too.
const ROUNDED: [&str; 4] = ["llama2", "llama3-rope", "qwen3", "gpt2"];
/// One whose weights are stored in every scheme.
const QUANTIZED: &str = "qwen3";
/// Schemes whose speed is measured, beside none.
const MEASURED: [Scheme; 5] =
    [Scheme::W8A8, Scheme::Fp8, Scheme::W4, Scheme::Int4 { group: 128 }, Scheme::Nf4 { group: 64 }];

/// What products of f32 may be off by, those of rounded rows, and what falls on the edge between two integers.
const EXACT: f32 = 1e-4;
const ROUNDING: f32 = 2e-2;
const EDGES: f32 = 6e-2;

/// Tokens of a text for a layer, and of one that passes what is kept of it.
const TEXT: usize = 40;
const LONG: usize = 110;
/// What is kept then: a page of sinks and two of the last positions.
const WINDOW: CtxPolicy = CtxPolicy::Window { window: 33, sinks: 1 };

/// A model of the bundle.
struct Case {
    name: String,
    options: Options,
    tolerance: f32,
    /// Whether what is expected is the reference, its tokens included, or else what the graph means.
    by_reference: bool,
    /// Whether the text is [`LONG`], not the reference's.
    long: bool,
}

#[derive(clap::Parser)]
#[command(about = "Compile what gpu-check checks and measures")]
struct Cli {
    /// Folder to write
    output: PathBuf,
    /// Checkpoints whose shapes are taken: of those of one layer results are checked, of others the speed is measured
    shapes: Vec<PathBuf>,
    /// Only models and kernels whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<()> {
    let Cli { output: out, shapes, only } = clap::Parser::parse();
    let mut list = Bundle::default();
    for case in cases(&out.join("fixtures")).into_iter().filter(|c| c.name.contains(&only)) {
        eprintln!("{}", case.name);
        list.models.push(model(&out, &case)?);
    }
    fs::remove_dir_all(out.join("fixtures"))?;
    for shape in &shapes {
        for scheme in [None].into_iter().chain(MEASURED.map(Some)) {
            let name = name_of(shape, scheme);
            if !name.contains(&only) {
                continue;
            }
            eprintln!("{name}");
            match shape.to_string_lossy().ends_with("-layer") {
                true => list.models.push(layer(&out, shape, (name, scheme))?),
                false => list.speeds.push(speed(&out, shape, (name, scheme))?),
            }
        }
    }
    gpu_check::kernels::write(&out, &kernels::checks(&only)?)?;
    fs::write(out.join(bundle::LIST), serde_json::to_vec_pretty(&list)?)?;
    Ok(())
}

/// How to compile a model for GPUs: machine code too where there is an assembler, as the driver's takes long.
fn options(folder: PathBuf) -> Options {
    let ptxas = cuda_tools::assembler().map(|tool| tool.path().to_path_buf());
    Options { targets: vec!["cuda".into()], ptxas, ..Options::new(folder) }
}

/// Every model whose results are known; the fixtures' weights are written into `folder`.
fn cases(folder: &Path) -> Vec<Case> {
    let base = |fixture: &str| options(weights::model(fixture, "config.json", folder));
    let case = |name, options, tolerance, by_reference| Case { name, options, tolerance, by_reference, long: false };
    let exact = FIXTURES.map(|f| {
        let options = Options { activations: Activations::F32, kv: Kv::F32, ..base(f) };
        case(format!("{f}-f32"), options, EXACT, true)
    });
    let rounded = ROUNDED.map(|f| case(format!("{f}-rounded"), base(f), ROUNDING, false));
    let quantized = SCHEMES.map(|scheme| {
        let options = Options { quantize: Some(scheme), ..base(QUANTIZED) };
        let tolerance = if scheme.is_float() { ROUNDING } else { EDGES };
        case(name_of(Path::new(QUANTIZED), Some(scheme)), options, tolerance, false)
    });
    let bytes = Options { kv: Kv::Int8, ..base("llama3-rope") };
    let bytes = case("llama3-rope-kv8".into(), bytes, EDGES, false);
    let window = Options { activations: Activations::F32, kv: Kv::F32, ctx_policy: WINDOW, ..base("llama2") };
    let window = Case { long: true, ..case("llama2-window".into(), window, EXACT, false) };
    exact.into_iter().chain(rounded).chain(quantized).chain([bytes, window]).collect()
}

/// A text: token ids below `vocab`.
fn text(tokens: usize, vocab: usize) -> Vec<i32> {
    (0..tokens).map(|i| ((i * 7919 + 13) % vocab) as i32).collect()
}

/// Compiles a model and writes its parts with what is expected of it.
fn model(out: &Path, case: &Case) -> Result<bundle::Model> {
    let folder = out.join(&case.name);
    let (front, _) = compile_into(&folder, &case.options, true)?;
    let Prompt { mut ids, logits, greedy, .. } = prompts(&reference(&case.options.model)).swap_remove(0);
    if case.long {
        ids = text(LONG, front.opened.spec.vocab);
    }
    let expected = if case.by_reference { logits } else { meaning(&front, &ids)? };
    fs::write(folder.join(bundle::LOGITS), expected.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    let tokens = |ids: Vec<i32>| ids.into_iter().map(|id| id as u32).collect();
    let greedy = if case.by_reference { tokens(greedy) } else { vec![] };
    Ok(bundle::Model { name: case.name.clone(), tolerance: case.tolerance, ids: tokens(ids), greedy })
}

/// The fixture that a folder of weights was made from.
fn reference(folder: &Path) -> PathBuf {
    let name = folder.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix("-config.json"));
    weights::fixtures().join(name.expect("folders are named for their fixtures"))
}

/// The logits that the graph means.
fn meaning(front: &compile::Front, ids: &[i32]) -> Result<Vec<f32>> {
    let params = front.params();
    let positions: Vec<i32> = (0..ids.len() as i32).collect();
    let logits = Interp::new(&front.module, &params).step(ids, &positions, &vec![0; ids.len()], &positions)?;
    Ok(logits.as_f32()?.to_vec())
}

/// What the folder of a shape in a scheme is called.
fn name_of(shape: &Path, scheme: Option<Scheme>) -> String {
    let own = shape.file_name().and_then(|n| n.to_str()).unwrap_or("model");
    let scheme = scheme.map_or("plain".into(), |s| s.to_string().replace(['(', ')'], "-"));
    format!("{own}-{scheme}")
}

/// The parts of a model with made-up weights, and what a CPU here computes with the same.
fn layer(out: &Path, shape: &Path, (name, scheme): (String, Option<Scheme>)) -> Result<bundle::Model> {
    let here = Target::best(amx::native()).ok_or("no target runs here")?.name;
    let options = Options {
        targets: vec!["cuda".into(), here],
        quantize: scheme,
        ctx_size: Some(2 * TEXT),
        ..options(shape.to_path_buf())
    };
    let (front, plan) = compile_into(&out.join(&name), &options, false)?;
    let variant = plan.variants.iter().position(|v| !v.target.is_gpu()).ok_or("a CPU's code was asked for")?;
    let model = Model { weights: bundle::made_up(plan.weights.bytes), plan, vocab: front.opened.spec.vocab, variant };
    let backend = options.backend()?;
    let mut native = Native::new(&model, &*backend, Pages::new(0, 1, 2 * TEXT), 2);
    let ids = text(TEXT, model.vocab);
    let expected = prefill(&mut native, 0, &ids, TEXT);
    fs::write(
        out.join(&name).join(bundle::LOGITS),
        expected.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(),
    )?;
    let ids = ids.into_iter().map(|id| id as u32).collect();
    Ok(bundle::Model { name, tolerance: EDGES, ids, greedy: vec![] })
}

/// The parts of a model whose weights do not matter.
fn speed(out: &Path, shape: &Path, (name, scheme): (String, Option<Scheme>)) -> Result<Speed> {
    let options = Options { quantize: scheme, ctx_size: Some(4096), ..options(shape.to_path_buf()) };
    compile_into(&out.join(&name), &options, false)?;
    Ok(Speed { name, prefill: 2048, depth: 1024, decode: 128 })
}

/// Code for GPUs in little room: what is tuned to a generation as machine code, if there is an assembler, and else text
/// that every driver compiles.
fn lean(device: &[u8]) -> Result<Vec<u8>> {
    let mut images = llmc_abi::device::read(device).ok_or("the images just written are sound")?;
    images.retain(|i| is_lean(i.specific, i.kind));
    Ok(llmc_abi::device::write(&images))
}

/// Whether an image is among those.
fn is_lean(specific: bool, kind: DeviceKind) -> bool {
    specific == (kind == DeviceKind::Cubin)
}

/// Compiles a model and writes its parts.
fn compile_into(folder: &Path, options: &Options, weights: bool) -> Result<(compile::Front, Plan)> {
    fs::create_dir_all(folder)?;
    let progress = Progress::Quiet;
    let front = compile::front(options, &progress)?;
    let plan = compile::plan(&front, options)?;
    let (_, device) = compile::objects(&plan, options, &progress)?;
    let manifest = manifest::build(&front, &plan, options)?;
    fs::write(folder.join(bundle::MANIFEST), serde_json::to_vec(&manifest)?)?;
    fs::write(folder.join(bundle::CODE), lean(&device.ok_or("code for GPUs was asked for")?)?)?;
    if weights {
        let mut payload = Payload::new(&front, &plan, &manifest, (None, None), &progress);
        let mut file = std::io::BufWriter::new(fs::File::create(folder.join(bundle::WEIGHTS))?);
        payload.write_weights(&mut file).map_err(|e| e.to_string())?;
    }
    Ok((front, plan))
}
