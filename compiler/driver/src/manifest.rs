//! The manifest of an artifact, from everything that was decided.

use crate::compile::Front;
use crate::error::{Error, Result};
use crate::options::Options;
use llmc_abi::Manifest;
use llmc_abi::manifest::{KvInfo, ModelInfo, TextInfo, VERSION, VariantInfo, WeightsInfo};
use llmc_lower::Plan;
use llmc_models::{Activations, TextConfig};
use std::io::Read;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// The manifest of a compiled model.
///
/// # Errors
/// If a source file cannot be read again.
pub fn build(front: &Front, plan: &Plan, options: &Options) -> Result<Manifest> {
    let backend = options.backend()?.name();
    Ok(Manifest {
        version: VERSION,
        llmc: env!("CARGO_PKG_VERSION").into(),
        name: front.opened.name.clone(),
        architecture: front.opened.spec.family.to_string(),
        model: model(front, plan),
        text: text(&front.opened.text),
        step: plan.step.clone(),
        kv: KvInfo { keep: front.build.keep, ..plan.kv.clone() },
        variants: plan.variants.iter().map(|v| variant(v, backend)).collect(),
        weights: WeightsInfo {
            bytes: plan.weights.bytes as u64,
            bytes_per_token: plan.weight_bytes_per_token(),
            tensors: plan.tensors(&front.module),
        },
        activations: match (options.quantize, front.build.activations) {
            (Some(scheme), _) if !scheme.is_float() => "int8 per token".into(),
            (_, Activations::F32) => "f32".into(),
            (_, Activations::Bf16) => "bf16".into(),
        },
        pruned: front.pruned.info(),
        license: front.opened.license.clone(),
        sources: front.opened.sources.iter().map(|p| source(p)).collect::<Result<_>>()?,
    })
}

fn model(front: &Front, plan: &Plan) -> ModelInfo {
    ModelInfo {
        vocab: front.opened.spec.vocab,
        d_model: front.opened.spec.width,
        layers: front.module.kv.len(),
        parameters: parameters(front, plan),
        context: front.build.ctx,
    }
}

/// Parameters of the model, or what pruning has left of them.
fn parameters(front: &Front, plan: &Plan) -> u64 {
    if front.pruned.is_nothing() {
        return front.opened.checkpoint.parameter_count();
    }
    // Constants and a scheme's table are no parameters of the model.
    let tensors = plan.tensors(&front.module);
    let weights = tensors.iter().filter(|t| t.name != llmc_lower::plan::CONSTANT);
    weights.map(|t| t.shape.iter().product::<usize>() as u64).sum()
}

fn text(text: &TextConfig) -> TextInfo {
    let s = &text.sampling;
    let sampling = [
        ("temperature", s.temperature.map(f64::from)),
        ("top_k", s.top_k.map(f64::from)),
        ("top_p", s.top_p.map(f64::from)),
        ("min_p", s.min_p.map(f64::from)),
        ("repetition_penalty", s.repetition_penalty.map(f64::from)),
    ];
    TextInfo {
        bos: text.bos,
        eos: text.eos.clone(),
        chat_template: text.chat_template.clone(),
        special: text.special.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        sampling: sampling.into_iter().filter_map(|(k, v)| v.map(|v| (k.into(), v))).collect(),
    }
}

fn variant(v: &llmc_lower::VariantPlan, backend: &str) -> VariantInfo {
    VariantInfo {
        target: v.target.name.clone(),
        backend: backend.into(),
        features: v.target.features,
        arena_bytes: v.scratch.arena_bytes,
        worker_bytes: v.scratch.worker_bytes,
        phases: v.phases.clone(),
        group: v.group.clone(),
    }
}

/// Name and XXH3-64 of a file.
fn source(path: &Path) -> Result<(String, String)> {
    let failed = |e: std::io::Error| Error::io("reading", path, &e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hasher, mut buffer) = (Xxh3::new(), vec![0u8; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Ok((name, format!("{:016x}", hasher.digest())))
}
