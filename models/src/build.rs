//! The generic builder: a spec and its weights become a module.
//!
//! Only plain ops are emitted; fusing them is the work of the passes. Equal layers share one
//! block: layers are equal when their specs are, and the types and transforms of their weights.

use crate::bind::{Transform, WeightRef};
use crate::blocks::{Built, Weights, ends, layer};
use crate::error::{Error, Result};
use crate::open::Opened;
use crate::spec::{ArchSpec, LayerSpec, Mixer, Positions, RopeSpec};
use llmc_abi::manifest::{Keep, PAGE_POSITIONS};
use llmc_ir::{Block, BlockId, Call, DType, KvType, Module, ParamId, ParamInfo, TensorType};
use std::collections::BTreeMap;

/// What products read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// f32 as it is.
    F32,
    /// f32 rounded to bf16.
    Bf16,
}

/// Choices that are the user's, not the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// What products read.
    pub activations: Activations,
    /// Element type of the KV cache.
    pub kv: DType,
    /// Positions the program is made for.
    pub ctx: usize,
    /// What sequences of any length keep of their cache; none where they end with the context.
    pub keep: Option<Keep>,
}

/// The module of an opened model.
///
/// # Errors
/// As [`module`].
pub fn build(opened: &Opened, options: &BuildOptions) -> Result<Module> {
    module(&opened.spec, &opened.weights, options)
}

/// The module of a spec with these weights.
///
/// # Errors
/// [`Error::Options`] if the options do not fit the model; [`Error::Ir`] for a bug of llmc.
pub fn module(spec: &ArchSpec, weights: &Weights, options: &BuildOptions) -> Result<Module> {
    check(spec, options)?;
    let ropes = distinct_ropes(spec);
    let mut program = Program::new(weights);
    program.call_new(ends::embed(spec, &ropes, weights, options)?, None);
    let mut distinct: Vec<(LayerKey, BlockId)> = Vec::new();
    for (i, layer_spec) in spec.layers.iter().enumerate() {
        let kv = program.kv(layer_spec, options);
        let prefix = format!("layers.{i}.");
        let key = LayerKey::new(layer_spec, weights, &prefix);
        let known = distinct.iter().find(|(k, _)| *k == key).map(|(_, id)| *id);
        let name = format!("layer{}", distinct.len());
        let built = layer::layer(&name, &prefix, layer_spec, spec.width, &ropes, weights, options)?;
        match known {
            Some(block) => program.call(block, built.actual, Some(kv)),
            None => distinct.push((key, program.call_new(built, Some(kv)))),
        }
    }
    program.call_new(ends::head(spec, weights, options)?, None);
    Ok(program.module)
}

fn check(spec: &ArchSpec, options: &BuildOptions) -> Result<()> {
    if options.ctx == 0 {
        return Err(Error::Options("the context must have at least 1 position".into()));
    }
    if options.kv == DType::I32 {
        return Err(Error::Options("a KV cache of i32 is not possible; use f32, f16 or bf16".into()));
    }
    if options.keep.is_some() {
        check_keep(spec, options)?;
    }
    match spec.embed.positions {
        Positions::Learned { count } if options.ctx > count => Err(Error::Options(format!(
            "a context of {} is more than the {count} positions the model has learned",
            options.ctx
        ))),
        _ => Ok(()),
    }
}

/// Whether positions may count within what a sequence keeps: they are rotary ones, and as many as were learned.
fn check_keep(spec: &ArchSpec, options: &BuildOptions) -> Result<()> {
    let rotary = |layer: &LayerSpec| {
        let Mixer::Attention(attn) = &layer.mixer;
        attn.rope.is_some()
    };
    if spec.embed.positions != Positions::None || !spec.layers.iter().all(rotary) {
        return Err(Error::Options(
            "keeping a part of a text needs rotary positions in every layer, and this model has others; \
             use the policy `full`"
                .into(),
        ));
    }
    let positions = options.keep.map_or(0, |keep| keep.pages().saturating_mul(PAGE_POSITIONS));
    if positions > options.ctx {
        return Err(Error::Options(format!(
            "the positions that are kept, in whole pages of {PAGE_POSITIONS}, are {positions}, more than \
             the context of {}; keep fewer",
            options.ctx
        )));
    }
    Ok(())
}

/// The rotary embeddings of the layers, each once.
fn distinct_ropes(spec: &ArchSpec) -> Vec<&RopeSpec> {
    let mut ropes: Vec<&RopeSpec> = Vec::new();
    for layer in &spec.layers {
        let Mixer::Attention(attn) = &layer.mixer;
        if let Some(rope) = &attn.rope
            && !ropes.contains(&rope)
        {
            ropes.push(rope);
        }
    }
    ropes
}

/// What makes layers share a block.
#[derive(Debug, PartialEq)]
struct LayerKey<'a> {
    spec: &'a LayerSpec,
    weights: Vec<(&'a str, &'a TensorType, &'a [Transform])>,
}

impl<'a> LayerKey<'a> {
    fn new(spec: &'a LayerSpec, weights: &'a Weights, prefix: &str) -> LayerKey<'a> {
        let of_layer = weights.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        let part = |(name, r): (&'a String, &'a WeightRef)| (&name[prefix.len()..], &r.ty, r.transforms.as_slice());
        LayerKey { spec, weights: of_layer.map(part).collect() }
    }
}

/// The module in the making.
struct Program<'a> {
    module: Module,
    ids: BTreeMap<String, ParamId>,
    types: BTreeMap<&'a str, &'a TensorType>,
}

impl<'a> Program<'a> {
    fn new(weights: &'a Weights) -> Program<'a> {
        let types = weights.values().map(|r| (r.param.as_str(), &r.ty)).collect();
        Program { module: Module::default(), ids: BTreeMap::new(), types }
    }

    /// The number of a layer's KV cache.
    fn kv(&mut self, layer: &LayerSpec, options: &BuildOptions) -> u32 {
        let Mixer::Attention(attn) = &layer.mixer;
        let ty = KvType { dtype: options.kv, heads: attn.kv_heads, head_dim: attn.head_dim };
        self.module.kv.push(ty);
        (self.module.kv.len() - 1) as u32
    }

    fn call_new(&mut self, built: Built, kv: Option<u32>) -> BlockId {
        let id = self.add(built.block);
        self.call(id, built.actual, kv);
        id
    }

    fn add(&mut self, block: Block) -> BlockId {
        self.module.blocks.push(block);
        BlockId((self.module.blocks.len() - 1) as u32)
    }

    fn call(&mut self, block: BlockId, actual: Vec<String>, kv: Option<u32>) {
        let params = actual.into_iter().map(|name| self.param(name)).collect();
        self.module.calls.push(Call { block, params, kv });
    }

    fn param(&mut self, name: String) -> ParamId {
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = ParamId(self.module.params.len() as u32);
        let ty = self.types[name.as_str()].clone();
        self.module.params.push(ParamInfo { name: name.clone(), ty });
        self.ids.insert(name, id);
        id
    }
}
