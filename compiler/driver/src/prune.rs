//! What is left out of a model: how much the user says, which parts the model itself says, measured on a text.

use crate::error::{Error, Result};
use crate::options::{Options, Prune};
use crate::progress::Progress;
use llmc_abi::Feature;
use llmc_abi::manifest::PrunedInfo;
use llmc_calibrate::{Findings, Request, Setup};
use llmc_ir::{Block, DType, MemoryParams, Module, Overlay, ParamSource, Tensor};
use llmc_kernels::Target;
use llmc_models::{Activations, BuildOptions, Opened};
use llmc_passes::Pruning;
use llmc_passes::prune::{Prunable, keep_name, layers, prunable};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

/// Windows of the text that are measured, spread over it evenly.
const WINDOWS: usize = 4;
/// Tokens of a window.
const WINDOW: usize = llmc_calibrate::machine::WINDOW;
/// Fewest tokens that say something.
const FEWEST: usize = 64;
/// Channels are kept in multiples of one of these, so that groups of weights with a common scale stay whole.
const GRANULES: [usize; 3] = [128, 64, 32];

/// What was decided.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// What the passes leave out.
    pub pruning: Pruning,
    /// The parameters that list columns which stay.
    lists: MemoryParams,
    /// Channels that stay in a layer and how many there were, if they differ.
    channels: Option<(usize, usize)>,
}

impl Pruned {
    /// True where the model stays whole.
    pub fn is_nothing(&self) -> bool {
        self.pruning == Pruning::default()
    }

    /// What the artifact says of it.
    pub fn info(&self) -> Option<PrunedInfo> {
        let layers = self.pruning.layers.iter().copied().collect();
        (!self.is_nothing()).then_some(PrunedInfo { layers, channels: self.channels })
    }

    /// Weights with the lists of columns that stay.
    pub fn params<'a>(&'a self, weights: &'a dyn ParamSource) -> Overlay<'a> {
        Overlay { own: &self.lists, base: weights }
    }
}

/// Decides what is left out of a model, whose module as the builder makes it is `module`.
///
/// # Errors
/// [`Error::Usage`] if more is asked for than there is, or without a text; [`Error::Input`] for a text that is
/// too short.
pub fn decide(opened: &Opened, module: &Module, options: &Options, progress: &Progress) -> Result<Pruned> {
    let Prune { layers: count, ffn_percent } = options.prune;
    let request = Request { layers: count > 0, channels: ffn_percent > 0.0 };
    if request == Request::default() {
        if options.calibrate.is_some() {
            progress.warn("--calibrate: nothing is measured, since --prune asks for nothing");
        }
        return Ok(Pruned::default());
    }
    check(module, options)?;
    let findings = measure(opened, options, request, progress)?;
    let mut pruned = Pruned::default();
    pruned.pruning.layers = least(&findings.layers, count).into_iter().collect();
    let calls = layers(module);
    for (layer, worth) in findings.channels.iter().enumerate() {
        if !pruned.pruning.layers.contains(&layer) {
            let call = &module.calls[calls[layer]];
            let weight = call.params[the_prunable(module.block(call.block), layer)?.param];
            pruned.keep_channels(&module.param(weight).name, layer, worth, ffn_percent);
        }
    }
    report(&pruned, &findings, progress);
    Ok(pruned)
}

/// Refuses what cannot be pruned, before anything is measured.
fn check(module: &Module, options: &Options) -> Result<()> {
    let (Prune { layers: count, ffn_percent }, calls) = (options.prune, layers(module));
    if count >= calls.len() {
        let have = calls.len();
        return Err(Error::Usage(format!("--prune layers={count}: the model has {have} layers, and one has to stay")));
    }
    if options.fuel == Some(0) {
        return Err(Error::Usage("--prune: needs the rewrite rules, which --fuel 0 turns off".into()));
    }
    if ffn_percent > 0.0 {
        let block = |call: usize| module.block(module.calls[call].block);
        calls.iter().enumerate().try_for_each(|(layer, call)| check_channels(block(*call), layer, ffn_percent))?;
    }
    Ok(())
}

/// Indices of the `count` smallest values, of equal ones the first.
fn least(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    order.truncate(count);
    order
}

/// The one weight of a layer whose columns can be pruned.
fn the_prunable(block: &Block, layer: usize) -> Result<Prunable> {
    let mut found = prunable(block);
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(Error::Usage(format!("--prune ffn: layer {layer} has no channels that a single weight reads"))),
    }
}

/// Checks, before anything is measured, that a layer has channels of which so many percent can go.
fn check_channels(block: &Block, layer: usize, percent: f64) -> Result<()> {
    let all = the_prunable(block, layer)?.channels;
    match kept_channels(all, percent) {
        kept if kept < all => Ok(()),
        _ => Err(Error::Usage(format!(
            "--prune ffn={percent}%: layer {layer} has {all} channels, which go in groups of {}; ask for more",
            granule(all)
        ))),
    }
}

impl Pruned {
    /// Notes which channels of a layer stay.
    fn keep_channels(&mut self, name: &str, layer: usize, worth: &[f64], percent: f64) {
        let kept = kept_channels(worth.len(), percent);
        let dropped: BTreeSet<usize> = least(worth, worth.len() - kept).into_iter().collect();
        let list = (0..worth.len()).filter(|i| !dropped.contains(i)).map(|i| i as i32).collect();
        self.lists.0.insert(keep_name(name), Tensor::i32s(list));
        self.pruning.channels.insert(layer, kept);
        self.channels = Some((kept, worth.len()));
    }
}

/// How many channels go together.
fn granule(all: usize) -> usize {
    GRANULES.into_iter().find(|g| all.is_multiple_of(*g) && all / g >= 8).unwrap_or(1)
}

/// How many of `all` channels stay where `percent` of them shall go: the nearest whole number of granules.
fn kept_channels(all: usize, percent: f64) -> usize {
    let granule = granule(all);
    let granules = all as f64 * (1.0 - percent / 100.0) / granule as f64;
    ((granules.round() as usize).max(1) * granule).min(all)
}

fn measure(opened: &Opened, options: &Options, request: Request, progress: &Progress) -> Result<Findings> {
    let path = options.calibrate.as_deref().ok_or_else(|| {
        Error::Usage("--prune: what matters is measured on a text; give one with --calibrate FILE".into())
    })?;
    let windows = windows(opened, path)?;
    let ctx = WINDOW.min(opened.spec.context);
    let build = BuildOptions { activations: Activations::F32, kv: DType::F32, ctx, keep: None };
    let module = llmc_models::build(opened, &build)?;
    let backend = options.backend()?;
    let target = host()?;
    let setup = Setup {
        module: &module,
        params: &opened.checkpoint,
        backend: &*backend,
        target: &target,
        vector_bytes: options.max_vector_bytes(),
        workers: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let bar = progress.steps("measuring layers");
    let findings = llmc_calibrate::measure(setup, &windows, request, &|done, all| bar.set_of(done as u64, all as u64));
    bar.finish();
    let findings = findings.map_err(|e| Error::Failed(e.to_string()))?;
    if findings.layers.iter().chain(findings.channels.iter().flatten()).any(|v| !v.is_finite()) {
        let message = "--prune: the model gives values that are no numbers on this text; nothing can be measured";
        return Err(Error::Failed(message.into()));
    }
    Ok(findings)
}

/// This machine without the matrix tiles that a process has to ask for.
fn host() -> Result<Target> {
    let tiles = [Feature::AmxTile, Feature::AmxInt8, Feature::AmxBf16].iter().fold(0, |mask, f| mask | f.bit());
    Target::best(llmc_abi::features::detect() & !tiles)
        .ok_or_else(|| Error::Usage("--calibrate: this CPU is older than x86-64-v2 and cannot run the model".into()))
}

fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    let advice = if e.kind() == ErrorKind::InvalidData { "; it has to be a text in UTF-8" } else { "" };
    Error::Input(format!("--calibrate {}: {e}{advice}", path.display()))
}

/// Windows of tokens of a text, spread over it.
fn windows(opened: &Opened, path: &Path) -> Result<Vec<Vec<i32>>> {
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    let json = opened.tokenizer_json.as_ref().ok_or_else(|| {
        Error::Input(format!("--calibrate: {} has no tokenizer.json to read a text with", opened.name))
    })?;
    let broken = |e| Error::Input(format!("tokenizer.json of {}: {e}", opened.name));
    let ids = llmc_models::tokenizer::encode(json, &text).map_err(broken)?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= opened.spec.vocab) {
        let have = opened.spec.vocab;
        let message = format!("--calibrate {}: token {id} of a model that has {have}", path.display());
        return Err(Error::Input(message));
    }
    if ids.len() < FEWEST {
        let found = ids.len();
        let message = format!("--calibrate {}: {found} tokens, expected at least {FEWEST}", path.display());
        return Err(Error::Input(message));
    }
    let length = WINDOW.min(opened.spec.context).min(ids.len());
    let count = WINDOWS.min(ids.len() / length);
    let starts = (0..count).map(|i| (ids.len() - length) * i / count.max(2).saturating_sub(1));
    Ok(starts.map(|start| ids[start..start + length].iter().map(|id| *id as i32).collect()).collect())
}

/// Says what goes and what it costs.
fn report(pruned: &Pruned, findings: &Findings, progress: &Progress) {
    for layer in &pruned.pruning.layers {
        progress.stage(&format!(
            "leaving out layer {layer}: alone it changes predictions by {:.4} nats",
            findings.layers[*layer]
        ));
    }
    if let Some((kept, all)) = pruned.channels {
        progress.stage(&format!("keeping {kept} of {all} feed-forward channels in each layer"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_stay_in_whole_granules() {
        assert_eq!(kept_channels(8192, 30.0), 5760);
        assert_eq!(kept_channels(768, 30.0), 512);
        assert_eq!(kept_channels(96, 30.0), 67);
        assert_eq!(kept_channels(1024, 99.9), 128);
        assert_eq!(kept_channels(1024, 0.001), 1024);
    }

    #[test]
    fn the_least_are_chosen_in_order() {
        assert_eq!(least(&[3.0, 1.0, 2.0, 1.0], 3), [1, 3, 2]);
        assert_eq!(least(&[1.0], 0), [0usize; 0]);
    }
}
