//! What a layer and what a channel is worth on a text.
//!
//! A layer's influence is the divergence of the next token's distribution, KL(model || model without the
//! layer), over the later half of each window. All candidates run in one pass over the layers: beside the
//! residual stream of the whole model there is one for each layer left out so far.
//!
//! A channel's worth is the energy it adds to the residual stream: the sum over the text of its squares,
//! times the squared length of its column of the weight that reads it (Wanda, Sun et al. 2023, for whole
//! channels).

use crate::divergence::kl_sum;
use crate::machine::{Compiled, Kind, Machine, Setup, WINDOW};
use crate::{Error, Result, pieces};
use llmc_ir::{Block, Call, Module};
use llmc_passes::prune::{layers, prunable};

/// What is to be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The influence of each layer.
    pub layers: bool,
    /// The worth of each channel.
    pub channels: bool,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// For each layer, the divergence per token without it, in nats.
    pub layers: Vec<f64>,
    /// For each layer, what each channel of its feed-forward part is worth; empty where it has none.
    pub channels: Vec<Vec<f64>>,
}

/// Rows of logits that are in memory at a time.
const CHUNK: usize = 64;

/// The residual stream of all windows, row-major.
type Stream = Vec<f32>;

/// Measures a model on windows of tokens; `progress` hears how many of how many steps are done.
///
/// # Errors
/// If the model cannot be compiled or run.
pub fn measure(
    setup: Setup<'_>,
    windows: &[Vec<i32>],
    request: Request,
    progress: &dyn Fn(usize, usize),
) -> Result<Findings> {
    if windows.is_empty() || windows.iter().any(|w| w.len() < 2 || w.len() > WINDOW) {
        return Err(Error::Module(format!("windows have 2 to {WINDOW} tokens, and there is at least one")));
    }
    let mut run = Run { setup, windows, compiled: Compiled::default(), findings: Findings::default() };
    let calls = layers(setup.module);
    let mut whole = run.embed()?;
    let mut without: Vec<Stream> = Vec::new();
    for (layer, call) in calls.iter().enumerate() {
        progress(layer, calls.len() + 1);
        if request.channels {
            let worth = run.channels(*call, &whole)?;
            run.findings.channels.push(worth);
        }
        let mut piece = run.layer(*call)?;
        let before = request.layers.then(|| whole.clone());
        whole = run.advance(&mut piece, whole)?;
        without = without.into_iter().map(|s| run.advance(&mut piece, s)).collect::<Result<_>>()?;
        without.extend(before);
    }
    progress(calls.len(), calls.len() + 1);
    if request.layers {
        run.findings.layers = run.divergences(&whole, &without)?;
    }
    progress(calls.len() + 1, calls.len() + 1);
    Ok(run.findings)
}

struct Run<'a> {
    setup: Setup<'a>,
    windows: &'a [Vec<i32>],
    compiled: Compiled,
    findings: Findings,
}

impl<'a> Run<'a> {
    fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// The places of each window in the stream.
    fn places(&self) -> Vec<std::ops::Range<usize>> {
        let mut start = 0;
        let place = |w: &Vec<i32>| {
            start += w.len();
            start - w.len()..start
        };
        self.windows.iter().map(place).collect()
    }

    fn machine(&mut self, module: Module, kind: Kind) -> Result<Machine<'a>> {
        Machine::new(self.setup, module, kind, &mut self.compiled)
    }

    fn block(&self, call: usize) -> (&'a Block, &'a Call) {
        let call = &self.setup.module.calls[call];
        (self.setup.module.block(call.block), call)
    }

    fn embed(&mut self) -> Result<Stream> {
        let kind = (self.block(0).1.block, "embedding");
        let mut piece = self.machine(pieces::embedding(self.setup.module)?, kind)?;
        let mut stream = Vec::with_capacity(self.tokens() * piece.width());
        for window in self.windows {
            stream.extend(piece.run(window, 0..window.len())?);
        }
        Ok(stream)
    }

    fn layer(&mut self, call: usize) -> Result<Machine<'a>> {
        let module = pieces::layer(self.setup.module, call, self.tokens())?;
        self.machine(module, (self.block(call).1.block, "layer"))
    }

    /// The stream behind a layer.
    fn advance(&self, piece: &mut Machine<'_>, stream: Stream) -> Result<Stream> {
        let width = piece.width();
        let mut behind = Vec::with_capacity(stream.len());
        piece.set_stream(stream, width)?;
        for place in self.places() {
            let ids: Vec<i32> = place.map(|i| i as i32).collect();
            behind.extend(piece.run(&ids, 0..ids.len())?);
        }
        Ok(behind)
    }

    /// What each channel of a layer is worth.
    fn channels(&mut self, call: usize, stream: &Stream) -> Result<Vec<f64>> {
        let Some(module) = pieces::channels(self.setup.module, call, self.tokens())? else { return Ok(vec![]) };
        let mut piece = self.machine(module, (self.block(call).1.block, "channels"))?;
        piece.set_stream(stream.clone(), stream.len() / self.tokens())?;
        let mut energy = vec![0f64; piece.width()];
        for place in self.places() {
            let ids: Vec<i32> = place.map(|i| i as i32).collect();
            for row in piece.run(&ids, 0..ids.len())?.chunks_exact(energy.len()) {
                energy.iter_mut().zip(row).for_each(|(e, v)| *e += f64::from(*v) * f64::from(*v));
            }
        }
        let lengths = self.column_lengths(call)?;
        Ok(energy.iter().zip(&lengths).map(|(e, l)| e * l).collect())
    }

    /// Squared length of each column of the weight that reads a layer's channels.
    fn column_lengths(&self, call: usize) -> Result<Vec<f64>> {
        let (block, call) = self.block(call);
        let found = prunable(block);
        let [weight] = found.as_slice() else {
            return Err(Error::Module(format!("block {} has {} prunable weights", block.name, found.len())));
        };
        let name = &self.setup.module.param(call.params[weight.param]).name;
        let values = self.setup.params.load(name)?;
        let columns = values.shape[1];
        let mut lengths = vec![0f64; weight.channels];
        for (i, v) in values.as_f32()?.iter().enumerate() {
            let channel = if weight.by_input { i / columns } else { i % columns };
            lengths[channel] += f64::from(*v) * f64::from(*v);
        }
        Ok(lengths)
    }

    /// The divergence per token of each stream from the whole model's.
    fn divergences(&mut self, whole: &Stream, without: &[Stream]) -> Result<Vec<f64>> {
        let width = whole.len() / self.tokens();
        let scored: Vec<usize> = self.places().into_iter().flat_map(|p| p.start + p.len() / 2..p.end).collect();
        let kept = |s: &Stream| scored.iter().flat_map(|i| s[i * width..(i + 1) * width].to_vec()).collect::<Vec<_>>();
        let table: Stream = [whole].into_iter().chain(without).flat_map(kept).collect();
        let module = pieces::head(self.setup.module, table.len() / width)?;
        let last = self.setup.module.calls.len() - 1;
        let mut piece = self.machine(module, (self.block(last).1.block, "head"))?;
        piece.set_stream(table, width)?;
        let mut sums = vec![0f64; without.len()];
        for start in (0..scored.len()).step_by(CHUNK) {
            let ids: Vec<i32> = (start..scored.len().min(start + CHUNK)).map(|i| i as i32).collect();
            let expected = piece.run(&ids, 0..ids.len())?;
            for (layer, sum) in sums.iter_mut().enumerate() {
                let behind: Vec<i32> = ids.iter().map(|i| i + ((layer + 1) * scored.len()) as i32).collect();
                *sum += kl_sum(&expected, &piece.run(&behind, 0..ids.len())?, piece.width());
            }
        }
        Ok(sums.iter().map(|s| s / scored.len() as f64).collect())
    }
}
