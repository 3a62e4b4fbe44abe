//! `info`: what the artifact is, and how it would run on this machine.

use llmc_abi::manifest::{PrunedInfo, VariantInfo};
use llmc_abi::{Feature, Manifest, features};
use serde_json::{Value, json};

use super::engine_options;
use crate::artifact::{Artifact, choose_variant};
use crate::cli::Info;
use crate::error::{Error, Result};
use crate::limits;
use crate::memory::{Memory, Request, choose_context, megabytes};
use crate::output;
use crate::sys::amx;

/// Runs the command.
pub fn run(args: &Info) -> Result<()> {
    let artifact = Artifact::open()?;
    let runtime = runtime(&artifact.manifest, args);
    if args.json {
        let mut object = serde_json::to_value(&artifact.manifest)
            .map_err(|e| Error::failed(format!("cannot print the manifest: {e}")))?;
        if let Some(fields) = object.as_object_mut() {
            fields.insert("runtime".into(), runtime);
        }
        return output::print_line(&object.to_string());
    }
    output::print(&describe(&artifact.manifest, &runtime))
}

/// A variant's target and code generator; of a GPU also the most tokens of a step.
fn variant_name(v: &VariantInfo) -> String {
    let tokens = v.group.as_ref().map_or(String::new(), |group| format!(" (steps of up to {} tokens)", group.tokens));
    format!("{} by {}{tokens}", v.target, v.backend)
}

/// What this machine makes of the artifact.
fn runtime(manifest: &Manifest, args: &Info) -> Value {
    let have = features::detect();
    let choice = choose_variant(&manifest.variants, have, amx::request);
    let threads = args.machine.threads.map_or_else(limits::cpus, usize::from);
    let mut runtime = json!({
        "device": "cpu",
        "threads": threads,
        "cpu_features": Feature::names(have),
        "amx_refused": amx::needed(have) && !amx::request(),
        "memory_available": limits::memory_available(),
    });
    let more = match choice {
        Ok(variant) => plan(manifest, args, variant, threads),
        Err(error) => json!({ "variant": null, "refusal": error.to_string() }),
    };
    if let (Some(fields), Value::Object(more)) = (runtime.as_object_mut(), more) {
        fields.extend(more);
    }
    runtime
}

/// The variant taken and the memory it needs.
fn plan(manifest: &Manifest, args: &Info, variant: usize, workers: usize) -> Value {
    let options = engine_options(&args.machine);
    let request = Request { variant, workers, context: options.context, sequences: options.sequences };
    let target = manifest.variants.get(variant).map(|v| v.target.as_str());
    let backend = manifest.variants.get(variant).map(|v| v.backend.as_str());
    match choose_context(manifest, &request) {
        Ok(context) => {
            let memory = Memory::of(manifest, variant, workers, context, options.sequences);
            json!({
                "variant": target, "backend": backend, "context": context,
                "arena_bytes": memory.map(|m| m.arena), "logits_bytes": memory.map(|m| m.logits),
                "kv_bytes": memory.map(|m| m.kv),
            })
        }
        Err(error) => json!({ "variant": target, "backend": backend, "refusal": error.to_string() }),
    }
}

/// `layers 3, 5 left out; 512 of 768 feed-forward channels left`.
/// How long a text may be.
fn context(m: &Manifest) -> String {
    match m.kv.keep {
        None => format!("{} positions", m.model.context),
        Some(keep) if keep.by_use => format!(
            "any number of positions, of which {} are kept that attention has used most",
            keep.window.saturating_sub(1) * m.kv.page_positions
        ),
        Some(keep) => format!(
            "any number of positions, of which the {} first and the {} last are seen",
            keep.sinks * m.kv.page_positions,
            keep.window * m.kv.page_positions
        ),
    }
}

fn pruning(pruned: &PrunedInfo) -> String {
    let layers: Vec<String> = pruned.layers.iter().map(usize::to_string).collect();
    let layers = (!layers.is_empty()).then(|| format!("layers {} left out", layers.join(", ")));
    let channels = pruned.channels.map(|(kept, all)| format!("{kept} of {all} feed-forward channels left"));
    [layers, channels].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The same for people.
fn describe(m: &Manifest, runtime: &Value) -> String {
    let bytes = |key: &str| runtime[key].as_u64().map_or("?".into(), megabytes);
    let scheme = |name: &str| m.weights.tensors.iter().filter(|t| t.scheme == name).count();
    let mut schemes: Vec<_> = m.weights.tensors.iter().map(|t| t.scheme.as_str()).collect();
    schemes.sort_unstable();
    schemes.dedup();
    let schemes: Vec<_> = schemes.iter().map(|s| format!("{s} ({})", scheme(s))).collect();
    let variants: Vec<_> = m.variants.iter().map(variant_name).collect();
    let mut rows = vec![
        ("model", format!("{} ({}), compiled by llmc {}", m.name, m.architecture, m.llmc)),
        (
            "size",
            format!(
                "{} parameters, {} layers of {}, vocabulary {}",
                m.model.parameters, m.model.layers, m.model.d_model, m.model.vocab
            ),
        ),
        (
            "weights",
            format!(
                "{}, {} read per token; {}",
                megabytes(m.weights.bytes),
                megabytes(m.weights.bytes_per_token),
                schemes.join(", ")
            ),
        ),
        ("activations", m.activations.clone()),
        ("kv cache", format!("{}, {} bytes for {} positions", m.kv.dtype, m.kv.page_bytes, m.kv.page_positions)),
        ("context", context(m)),
        ("variants", variants.join(", ")),
        ("licence", m.license.clone().unwrap_or_else(|| "not stated".into())),
    ];
    if let Some(pruned) = &m.pruned {
        rows.insert(2, ("pruned", pruning(pruned)));
    }
    rows.extend(m.sources.iter().map(|(name, hash)| ("source", format!("{name} (XXH3 {hash})"))));
    match runtime["refusal"].as_str() {
        Some(refusal) => rows.push(("here", format!("cannot run: {refusal}"))),
        None => rows.push((
            "here",
            format!(
                "{} on {} threads, {} positions; memory: {} scratch, {} logits, {} KV cache",
                runtime["variant"].as_str().unwrap_or("?"),
                runtime["threads"],
                runtime["context"],
                bytes("arena_bytes"),
                bytes("logits_bytes"),
                bytes("kv_bytes")
            ),
        )),
    }
    rows.iter().map(|(name, text)| format!("{name:<12} {text}\n")).collect()
}
