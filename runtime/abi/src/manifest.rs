//! Everything an artifact says of itself, as JSON in its payload.

use serde::{Deserialize, Serialize};

/// Version of this structure; a runtime reads its own version only.
pub const VERSION: u32 = 1;

/// Description of an artifact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the llmc that made it.
    pub llmc: String,
    /// Name of the model (its folder or file stem).
    pub name: String,
    /// `model_type` of the checkpoint's configuration.
    pub architecture: String,
    /// Sizes of the model.
    pub model: ModelInfo,
    /// Special tokens and the chat template.
    pub text: TextInfo,
    /// Limits of one step.
    pub step: StepInfo,
    /// Layout of the KV cache.
    pub kv: KvInfo,
    /// Compiled steps, best first; the same order as the variants table.
    pub variants: Vec<VariantInfo>,
    /// Packed weights.
    pub weights: WeightsInfo,
    /// Activation type taken: `f32` or `bf16`.
    pub activations: String,
    /// What was pruned from the checkpoint's model, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PrunedInfo>,
    /// Licence named by the model's files, if any.
    pub license: Option<String>,
    /// Files compiled: name and XXH3-64 of their bytes in hexadecimal.
    pub sources: Vec<(String, String)>,
}

/// Sizes of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ModelInfo {
    pub vocab: usize,
    pub d_model: usize,
    pub layers: usize,
    pub parameters: u64,
    /// Positions that one sequence may have.
    pub context: usize,
}

/// What was left out of a checkpoint's model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PrunedInfo {
    /// Layers of the checkpoint, counted from 0.
    pub layers: Vec<usize>,
    /// Feed-forward channels that stay in each layer, and how many there were; where they were pruned.
    pub channels: Option<(usize, usize)>,
}

/// What the text commands need beside the tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TextInfo {
    /// Beginning-of-text token.
    pub bos: Option<u32>,
    /// Tokens that end a generation.
    pub eos: Vec<u32>,
    /// Jinja source of the chat template.
    pub chat_template: Option<String>,
    /// Text of special tokens that a template may name: (`bos_token`, `<|bos|>`) and so on.
    pub special: Vec<(String, String)>,
    /// Sampling defaults of generation_config.json: (`temperature`, 0.7) and so on.
    pub sampling: Vec<(String, f64)>,
}

/// Limits of one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepInfo {
    /// Most tokens of a step.
    pub tokens: usize,
    /// Most rows whose logits a step can give.
    pub rows: usize,
}

/// Positions in a page of the KV cache.
pub const PAGE_POSITIONS: usize = 32;

/// Layout of the KV cache. A page holds `page_positions` positions of every layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KvInfo {
    /// Element type: `f16` or `f32`.
    pub dtype: String,
    /// Positions per page.
    pub page_positions: usize,
    /// Bytes per page, all layers together; a multiple of 64.
    pub page_bytes: usize,
    /// What a sequence keeps that passes the cache; none where it may not.
    #[serde(default)]
    pub keep: Option<Keep>,
    /// Where keys and values of a position lie in a page, where positions are forgotten one by one.
    #[serde(default)]
    pub places: Vec<KvPlaces>,
    /// Where it is counted (f32) how much attention a position got, if it is.
    #[serde(default)]
    pub counts: Vec<KvPlaces>,
}

/// Where a page has some bytes of each of its positions: those of position `p` in row `r` of head `h` begin at
/// `offset + h * stride + (r * page_positions + p) * bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvPlaces {
    /// First byte in the page.
    pub offset: usize,
    /// Heads.
    pub heads: usize,
    /// Bytes from one head to the next.
    pub stride: usize,
    /// Rows of a head, each with bytes of all positions.
    pub rows: usize,
    /// Bytes of a position in a row.
    pub bytes: usize,
}

impl KvInfo {
    /// Whether positions can be forgotten by their use: all places lie in a page, whose positions are as many as in
    /// every page, and two pages are held at least.
    pub fn is_sound_by_use(&self) -> bool {
        let end = |p: &KvPlaces| {
            let row_bytes = self.page_positions.checked_mul(p.bytes)?;
            let head_bytes = row_bytes.checked_mul(p.rows)?;
            p.heads.checked_sub(1)?.checked_mul(p.stride)?.checked_add(head_bytes)?.checked_add(p.offset)
        };
        let fits = |p: &KvPlaces| end(p).is_some_and(|end| end <= self.page_bytes);
        let is_count = |p: &KvPlaces| p.rows == 1 && p.bytes == 4 && (p.offset | p.stride).is_multiple_of(4);
        self.page_positions == PAGE_POSITIONS
            && self.page_bytes.is_multiple_of(4)
            && self.keep.is_some_and(|keep| keep.sinks == 0 && keep.window >= 2)
            && self.places.iter().chain(&self.counts).all(fits)
            && self.counts.iter().all(is_count)
    }

    /// Positions of a sequence that the cache must hold: all of a context of so many, or what is kept beside
    /// the tokens of the longest step.
    pub fn held(&self, context: usize, step_tokens: usize) -> usize {
        let page = self.page_positions.max(1);
        let beside = |keep: Keep| if keep.by_use { 0 } else { step_tokens.div_ceil(page) };
        self.keep.map_or(context, |keep| (keep.pages() + beside(keep)).saturating_mul(page))
    }
}

/// What a sequence of any length keeps of its KV cache, in pages. A token sees the `sinks` first pages and
/// the `window` last ones, its own included; pages between are forgotten. By use, the cache has `window` pages,
/// and when they are full a page's worth of positions is forgotten that attention has used least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// First pages.
    pub sinks: usize,
    /// Last pages; at least 1.
    pub window: usize,
    /// Whether what attention has used least is forgotten; there are no sinks then.
    #[serde(default)]
    pub by_use: bool,
}

impl Keep {
    /// Pages that a token sees at most.
    pub fn pages(&self) -> usize {
        self.sinks.saturating_add(self.window)
    }

    /// Pages behind the sinks that a token in block `block` no longer sees.
    pub fn forgotten(&self, block: usize) -> usize {
        (block + 1).saturating_sub(self.pages())
    }
}

/// One compiled step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VariantInfo {
    /// Target's name: `x86-64-v3`.
    pub target: String,
    /// `llvm` or `cranelift`.
    pub backend: String,
    /// Mask of the CPU features needed; see [`crate::features`].
    pub features: u64,
    /// Bytes of scratch shared by the workers.
    pub arena_bytes: usize,
    /// Bytes of scratch for each worker.
    pub worker_bytes: usize,
    /// Phases in the order of their index; each ends at a barrier.
    pub phases: Vec<PhaseInfo>,
    /// Where a worker is a group of threads: a GPU's block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupInfo>,
}

/// A step that runs on a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Name of the kernel.
    pub kernel: String,
    /// Threads of a block.
    pub threads: usize,
    /// Most tokens of a step.
    pub tokens: usize,
    /// Bytes of the memory at `StepArgs::sync`.
    pub sync_bytes: usize,
}

/// What multiplies weights with activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes times bytes, summed in 32-bit integers.
    Int8,
    /// Bytes times bytes so small that some products are summed in 16 bits first.
    SmallInt8,
    /// bf16 times bf16, summed in f32.
    Bf16,
    /// Bytes times bytes in tiles, summed in 32-bit integers.
    Int8Tiles,
    /// bf16 times bf16 in tiles, summed in f32.
    Bf16Tiles,
    /// f32 times f32.
    F32,
}

/// What happens between two barriers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseInfo {
    /// Names of the kernels run in it.
    pub kernels: Vec<String>,
    /// Times it runs in a step.
    pub count: usize,
    /// Weight bytes read by all its runs of a one-token step together.
    pub weight_bytes: u64,
    /// KV bytes read by all its runs together, for each cached position.
    pub kv_bytes_per_position: u64,
    /// Floating-point operations of all its runs for each token, attention left out.
    pub flops_per_token: u64,
    /// The same for each row whose logits are wanted.
    pub flops_per_row: u64,
    /// What its products are made with; none where it has none.
    #[serde(default)]
    pub unit: Option<Unit>,
}

/// Packed weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightsInfo {
    /// Bytes of the weights section.
    pub bytes: u64,
    /// Weight bytes that one decoded token reads.
    pub bytes_per_token: u64,
    /// Every packed tensor.
    pub tensors: Vec<TensorInfo>,
}

/// A packed tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Canonical name.
    pub name: String,
    /// Scheme: `bf16`, `f16`, `f32`.
    pub scheme: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// Byte offset in the weights section.
    pub offset: u64,
    /// Bytes there.
    pub bytes: u64,
}
