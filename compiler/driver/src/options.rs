//! What a compilation is asked for.

use crate::error::{Error, Result};
#[cfg(feature = "llvm")]
use crate::isolate::Isolated;
use llmc_ir::quant::Scheme;
use llmc_kernels::{Backend, Target};
use std::path::PathBuf;

/// Type of the values that products read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Activations {
    /// f32 for f32 checkpoints, bf16 for bf16 and f16 ones.
    #[default]
    Auto,
    /// f32.
    F32,
    /// f32 rounded to bf16.
    Bf16,
    /// 8-bit integers with a scale for each token; with quantized weights only.
    Int8,
}

/// How much of a model is pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prune {
    /// Layers that are left out.
    pub layers: usize,
    /// Share of each layer's feed-forward channels that is left out, in percent.
    pub ffn_percent: f64,
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kv {
    /// binary16.
    #[default]
    F16,
    /// binary32.
    F32,
    /// 8-bit integers with a scale for each head and position.
    Int8,
    /// e4m3fn with a scale for each head and position.
    Fp8,
}

/// What happens to a text that passes the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CtxPolicy {
    /// It ends.
    #[default]
    Full,
    /// Its first and its last positions stay in sight.
    Window {
        /// Last positions.
        window: usize,
        /// First positions.
        sinks: usize,
    },
    /// Those of its positions stay that attention has used most.
    Score {
        /// How many.
        positions: usize,
    },
}

/// Code generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendName {
    /// LLVM 22.
    Llvm,
    /// Cranelift.
    Cranelift,
}

/// Everything that decides what an artifact is.
#[derive(Clone, Debug)]
pub struct Options {
    /// MODEL as the user wrote it.
    pub model: PathBuf,
    /// Targets, best first; `cpu` is the machine this runs on.
    pub targets: Vec<String>,
    /// Code generator; `None` is LLVM where it is built in.
    pub backend: Option<BackendName>,
    /// Activation type.
    pub activations: Activations,
    /// How weights are stored; `None` is as the checkpoint has them.
    pub quantize: Option<Scheme>,
    /// What is pruned.
    pub prune: Prune,
    /// A text on which the model is measured.
    pub calibrate: Option<PathBuf>,
    /// KV cache type.
    pub kv: Kv,
    /// Positions; `None` is what the model has.
    pub ctx_size: Option<usize>,
    /// What happens beyond them.
    pub ctx_policy: CtxPolicy,
    /// Rule applications allowed; 0 turns rewriting off.
    pub fuel: Option<u32>,
    /// Rewrite rules that are not used.
    pub disabled_rules: Vec<String>,
    /// Whether to compute what each rule saves.
    pub savings: bool,
    /// NVIDIA's assembler, for machine code beside the PTX of GPU targets; `auto` looks where it usually is.
    pub ptxas: Option<PathBuf>,
    /// Linker to run in place of the one inside llmc.
    pub linker: Option<PathBuf>,
    /// The llmc executable that runs LLVM in a process of its own; `None` runs it in this process,
    /// which LLVM may end.
    pub isolate: Option<PathBuf>,
}

impl Options {
    /// Defaults for a model.
    pub fn new(model: impl Into<PathBuf>) -> Options {
        Options {
            model: model.into(),
            targets: vec!["cpu".into()],
            backend: None,
            activations: Activations::Auto,
            quantize: None,
            prune: Prune::default(),
            calibrate: None,
            kv: Kv::F16,
            ctx_size: None,
            ctx_policy: CtxPolicy::Full,
            fuel: None,
            disabled_rules: vec![],
            savings: false,
            ptxas: None,
            linker: None,
            isolate: None,
        }
    }

    /// The code generator.
    ///
    /// # Errors
    /// If it is not built in.
    pub fn backend(&self) -> Result<Box<dyn Backend>> {
        match self.backend {
            Some(BackendName::Cranelift) => Ok(Box::new(llmc_codegen_cranelift::CraneliftBackend)),
            #[cfg(feature = "llvm")]
            _ => {
                let llvm = Box::new(llmc_codegen_llvm::LlvmBackend);
                Ok(match &self.isolate {
                    Some(program) => Box::new(Isolated::new(llvm, program.clone())),
                    None => llvm,
                })
            }
            #[cfg(not(feature = "llvm"))]
            None => Ok(Box::new(llmc_codegen_cranelift::CraneliftBackend)),
            #[cfg(not(feature = "llvm"))]
            Some(BackendName::Llvm) => {
                Err(Error::Usage("this llmc was built without LLVM; use --backend cranelift".into()))
            }
        }
    }

    /// Bytes of the widest vector the code generator keeps in one register.
    pub fn max_vector_bytes(&self) -> usize {
        match self.backend {
            Some(BackendName::Cranelift) => 16,
            None if cfg!(not(feature = "llvm")) => 16,
            _ => 64,
        }
    }

    /// The targets by name.
    ///
    /// # Errors
    /// If a name is unknown, or none is given.
    pub fn resolve_targets(&self) -> Result<Vec<Target>> {
        if self.targets.is_empty() {
            return Err(Error::Usage("--target names no target".into()));
        }
        self.targets.iter().map(|name| resolve_target(name)).collect()
    }
}

fn resolve_target(name: &str) -> Result<Target> {
    if name == "cpu" {
        return Target::best(llmc_abi::features::detect())
            .ok_or_else(|| Error::Usage("this CPU is older than x86-64-v2; name another --target".into()));
    }
    Target::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Target::names().collect();
        Error::Usage(format!("unknown target `{name}`; known are cpu, {}", names.join(", ")))
    })
}
