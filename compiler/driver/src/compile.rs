//! The pipeline: models -> passes -> lower -> back end -> link.

use crate::device;
use crate::error::{Error, Result};
use crate::manifest;
use crate::options::{Activations, CtxPolicy, Kv, Options};
use crate::payload::Payload;
use crate::progress::Progress;
use crate::prune::{self, Pruned};
use llmc_abi::device::DeviceImage;
use llmc_abi::manifest::{Keep, PAGE_POSITIONS};
use llmc_ir::{DType, Module, Overlay};
use llmc_kernels::kir::Program;
use llmc_kernels::{Object, Target};
use llmc_link::VariantSpec;
use llmc_lower::Plan;
use llmc_models::{BuildOptions, Opened};
use llmc_passes::TargetFacts;
use std::path::Path;

/// A finished artifact.
#[derive(Debug)]
pub struct Artifact {
    /// Sizes of the file.
    pub report: llmc_link::Report,
    /// What the rewriting did.
    pub passes: llmc_passes::Report,
}

/// A model after the passes: all that depends on what it computes, nothing on code.
#[derive(Debug)]
pub struct Front {
    /// The model's files.
    pub opened: Opened,
    /// How it was built.
    pub build: BuildOptions,
    /// The optimized module.
    pub module: Module,
    /// What the rewriting did.
    pub passes: llmc_passes::Report,
    /// What was left out of the model.
    pub pruned: Pruned,
}

impl Front {
    /// The weights, with the lists of what stays of them.
    pub fn params(&self) -> Overlay<'_> {
        self.pruned.params(&self.opened.checkpoint)
    }
}

/// Compiles a model into the executable `out`.
///
/// # Errors
/// See [`Error`]; nothing is left under the output's name.
pub fn compile(options: &Options, out: &Path, progress: &Progress) -> Result<Artifact> {
    check_targets(options)?;
    llmc_link::check_output(out)?;
    let front = front(options, progress)?;
    let tokenizer = tokenizer(&front.opened, progress)?;
    let plan = plan(&front, options)?;
    let (objects, device) = objects(&plan, options, progress)?;
    let manifest = manifest::build(&front, &plan, options)?;
    let mut payload = Payload::new(&front, &plan, &manifest, (tokenizer, device), progress);
    let objects: Vec<_> = objects.into_iter().map(|o| (o.name, o.bytes)).collect();
    let report = llmc_link::executable(&objects, &variants(&plan), &mut payload, out, options.linker.as_deref())?;
    Ok(Artifact { report, passes: front.passes })
}

/// Refuses targets that the runtime inside llmc does not run on.
fn check_targets(options: &Options) -> Result<()> {
    match options.resolve_targets()?.iter().find(|t| !t.name.starts_with("x86-64") && !t.is_gpu()) {
        None => Ok(()),
        Some(Target { name, .. }) => Err(Error::Usage(format!(
            "--target {name}: no executable can be made, since llmc has no runtime for it; use --emit asm or --emit object"
        ))),
    }
}

/// Opens a model, builds its module and runs the passes.
///
/// # Errors
/// See [`Error`].
pub fn front(options: &Options, progress: &Progress) -> Result<Front> {
    progress.stage("reading the model");
    let opened = llmc_models::open(&options.model)?;
    let build = build_options(&opened, options)?;
    let mut module = llmc_models::build(&opened, &build)?;
    let pruned = prune::decide(&opened, &module, options, progress)?;
    progress.stage("optimizing the graph");
    let pass_options = llmc_passes::Options { pruning: pruned.pruning.clone(), ..pass_options(options)? };
    let passes = llmc_passes::run(&mut module, &pass_options)?;
    Ok(Front { opened, build, module, passes, pruned })
}

/// The module as the builder makes it, before any pass.
///
/// # Errors
/// See [`Error`].
pub fn unoptimized(options: &Options) -> Result<Module> {
    let opened = llmc_models::open(&options.model)?;
    let build = build_options(&opened, options)?;
    Ok(llmc_models::build(&opened, &build)?)
}

/// Lowers for every target.
///
/// # Errors
/// If an op has no kernel.
pub fn plan(front: &Front, options: &Options) -> Result<Plan> {
    let info = llmc_ir::verify(&front.module)?;
    let targets = options.resolve_targets()?;
    let limits = llmc_lower::plan::Options::default();
    Ok(llmc_lower::plan(&front.module, &info, &targets, options.max_vector_bytes(), limits)?)
}

/// Object code of every variant of the CPU, and the images of those of a GPU, if there are any.
///
/// # Errors
/// If the back end refuses.
pub fn objects(plan: &Plan, options: &Options, progress: &Progress) -> Result<(Vec<Object>, Option<Vec<u8>>)> {
    let backend = options.backend()?;
    let (mut objects, mut images) = (Vec::new(), Vec::new());
    for (i, variant) in plan.variants.iter().enumerate() {
        progress.stage(&format!("generating code for {} with {}", variant.target.name, backend.name()));
        if !variant.target.is_gpu() {
            objects.extend(backend.compile(&variant.program, &variant.target)?);
            continue;
        }
        let step = plan.variants[..i].iter().filter(|v| v.target.is_gpu()).count() as u32;
        for (target, program) in variant.programs() {
            images.extend(device_images((step, target, program), options, progress)?);
        }
    }
    let device = (!images.is_empty()).then(|| llmc_abi::device::write(&images));
    Ok((objects, device))
}

/// The images of a GPU's program, which is the step numbered `step`.
///
/// # Errors
/// If the code generator or the assembler refuses it.
pub fn device_images(
    (step, target, program): (u32, &Target, &Program),
    options: &Options,
    progress: &Progress,
) -> Result<Vec<DeviceImage<Vec<u8>>>> {
    let mut images = Vec::new();
    for object in options.backend()?.compile(program, target)? {
        images.extend(device::images((step, target, program.shared_bytes()), object, options, progress)?);
    }
    Ok(images)
}

fn variants(plan: &Plan) -> Vec<VariantSpec> {
    plan.variants
        .iter()
        .filter(|v| !v.target.is_gpu())
        .map(|v| VariantSpec {
            target: v.target.name.clone(),
            features: v.target.features,
            step_symbol: v.symbol.clone(),
        })
        .collect()
}

fn build_options(opened: &Opened, options: &Options) -> Result<BuildOptions> {
    let activations = activations(opened, options)?;
    let kv = match options.kv {
        Kv::F16 => DType::F16,
        Kv::F32 => DType::F32,
        Kv::Int8 => DType::I8,
        Kv::Fp8 => DType::E4m3,
    };
    let ctx = options.ctx_size.unwrap_or(opened.spec.context);
    if ctx == 0 || ctx > opened.spec.context {
        let most = opened.spec.context;
        return Err(Error::Usage(format!("--ctx-size {ctx}: the model has 1 to {most} positions")));
    }
    Ok(BuildOptions { activations, kv, ctx, keep: keep(options)? })
}

/// What `--ctx-policy` keeps, in whole pages: at least the positions asked for, wherever in its page a token is.
fn keep(options: &Options) -> Result<Option<Keep>> {
    let pages = |positions: usize| positions.div_ceil(PAGE_POSITIONS);
    let keep = match options.ctx_policy {
        CtxPolicy::Full => return Ok(None),
        CtxPolicy::Window { window, sinks } => {
            Keep { sinks: pages(sinks), window: pages(window.saturating_sub(1)).saturating_add(1), by_use: false }
        }
        // Beside the page that is being filled.
        CtxPolicy::Score { positions } => Keep { sinks: 0, window: pages(positions).saturating_add(1), by_use: true },
    };
    if keep.by_use && options.resolve_targets()?.iter().any(Target::is_gpu) {
        return Err(Error::Usage("--ctx-policy score: GPUs do not count what is used; use window or full".into()));
    }
    Ok(Some(keep))
}

/// What products read. Weights quantized to integers meet 8-bit integers: a choice of the passes, which needs
/// roundings in the graph that it can take the place of.
fn activations(opened: &Opened, options: &Options) -> Result<llmc_models::Activations> {
    if options.quantize.is_some() && options.fuel == Some(0) {
        return Err(Error::Usage("--quantize: needs the rewrite rules, which --fuel 0 turns off".into()));
    }
    match (options.activations, options.quantize) {
        (Activations::F32, Some(scheme)) if scheme.is_float() => Ok(llmc_models::Activations::F32),
        (Activations::Auto | Activations::Bf16, Some(scheme)) if scheme.is_float() => {
            Ok(llmc_models::Activations::Bf16)
        }
        (Activations::Int8, Some(scheme)) if scheme.is_float() => Err(Error::Usage(format!(
            "--activations int8: weights in {scheme} meet floating-point numbers; use bf16 or f32"
        ))),
        (Activations::Auto | Activations::Int8, Some(_)) => Ok(llmc_models::Activations::Bf16),
        (other, Some(scheme)) => Err(Error::Usage(format!(
            "--activations {}: weights in {scheme} meet 8-bit integers; leave --activations out",
            format!("{other:?}").to_lowercase()
        ))),
        (Activations::Int8, None) => {
            Err(Error::Usage("--activations int8: needs quantized weights; add --quantize w8a8, for example".into()))
        }
        (Activations::F32, None) => Ok(llmc_models::Activations::F32),
        (Activations::Bf16, None) => Ok(llmc_models::Activations::Bf16),
        (Activations::Auto, None) => Ok(match opened.checkpoint.dtype() {
            DType::Bf16 | DType::F16 => llmc_models::Activations::Bf16,
            _ => llmc_models::Activations::F32,
        }),
    }
}

fn pass_options(options: &Options) -> Result<llmc_passes::Options> {
    let target: &Target = &options.resolve_targets()?[0];
    let mut passes = llmc_passes::Options::new(TargetFacts::named(&target.name)?);
    passes.fuel = options.fuel;
    passes.disabled_rules = options.disabled_rules.clone();
    passes.savings = options.savings;
    passes.choices = options.quantize.map(llmc_passes::Choice::of).into_iter().collect();
    Ok(passes)
}

/// The compiled tokenizer; without one the text commands of the artifact will say so.
fn tokenizer(opened: &Opened, progress: &Progress) -> Result<Option<Vec<u8>>> {
    let Some(json) = &opened.tokenizer_json else {
        progress.warn("the model has no tokenizer.json: the artifact's text commands will not work, --tokens will");
        return Ok(None);
    };
    progress.stage("compiling the tokenizer");
    let broken = |e| Error::Input(format!("tokenizer.json of {}: {e}", opened.name));
    Ok(Some(llmc_models::tokenizer::compile(json).map_err(broken)?))
}
