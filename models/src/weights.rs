//! The weights a spec calls for, by canonical name.
//!
//! Names: `embed.tokens`, `embed.positions`, `layers.N.attn.{q,k,v,o}.{weight,bias}`,
//! `layers.N.attn.{q,k}_norm.scale`, `layers.N.{attn,ffn}.norm.{scale,bias}`,
//! `layers.N.ffn.{gate,up,down}.{weight,bias}`, `final_norm.{scale,bias}`, `head.weight`.
//! A projection's weight has one row for each output element.

use crate::spec::{
    ArchSpec, AttnBias, AttnSpec, Ffn, FfnBias, HeadWeight, LayerSpec, Mixer, NormSpec, Positions, Residual,
};
use std::collections::BTreeMap;

/// Shape of each weight, by canonical name.
pub type WeightShapes = BTreeMap<String, Vec<usize>>;

/// Every weight of the model. A tied head has none of its own.
pub fn shapes(spec: &ArchSpec) -> WeightShapes {
    let mut all = List(WeightShapes::new());
    all.put("embed.", "tokens", &[spec.vocab, spec.width]);
    if let Positions::Learned { count } = spec.embed.positions {
        all.put("embed.", "positions", &[count, spec.width]);
    }
    for (i, layer) in spec.layers.iter().enumerate() {
        all.layer(&format!("layers.{i}."), layer, spec.width);
    }
    all.norm("final_norm.", spec.final_norm, spec.width);
    if spec.head.weight == HeadWeight::Own {
        all.put("head.", "weight", &[spec.vocab, spec.width]);
    }
    all.0
}

struct List(WeightShapes);

impl List {
    fn put(&mut self, prefix: &str, name: &str, shape: &[usize]) {
        self.0.insert(format!("{prefix}{name}"), shape.to_vec());
    }

    fn norm(&mut self, prefix: &str, norm: NormSpec, width: usize) {
        self.put(prefix, "scale", &[width]);
        match norm {
            NormSpec::Rms { .. } => {}
            NormSpec::Layer { .. } => self.put(prefix, "bias", &[width]),
        }
    }

    fn projection(&mut self, prefix: &str, bias: bool, rows: usize, columns: usize) {
        self.put(prefix, "weight", &[rows, columns]);
        if bias {
            self.put(prefix, "bias", &[rows]);
        }
    }

    fn layer(&mut self, prefix: &str, layer: &LayerSpec, width: usize) {
        let Residual::PreNorm { mixer, ffn } = layer.residual;
        self.norm(&format!("{prefix}attn.norm."), mixer, width);
        self.norm(&format!("{prefix}ffn.norm."), ffn, width);
        let Mixer::Attention(attn) = &layer.mixer;
        self.attention(&format!("{prefix}attn."), attn, width);
        self.ffn(&format!("{prefix}ffn."), &layer.ffn, width);
    }

    fn attention(&mut self, prefix: &str, a: &AttnSpec, width: usize) {
        let (q, kv) = (a.q_heads * a.head_dim, a.kv_heads * a.head_dim);
        let (qkv_bias, o_bias) = (a.bias != AttnBias::None, a.bias == AttnBias::All);
        self.projection(&format!("{prefix}q."), qkv_bias, q, width);
        self.projection(&format!("{prefix}k."), qkv_bias, kv, width);
        self.projection(&format!("{prefix}v."), qkv_bias, kv, width);
        self.projection(&format!("{prefix}o."), o_bias, width, q);
        if let Some(norm) = a.qk_norm {
            self.norm(&format!("{prefix}q_norm."), norm, a.head_dim);
            self.norm(&format!("{prefix}k_norm."), norm, a.head_dim);
        }
    }

    fn ffn(&mut self, prefix: &str, ffn: &Ffn, width: usize) {
        let (d_ff, bias) = match *ffn {
            Ffn::Gated { d_ff, bias, .. } => {
                self.projection(&format!("{prefix}gate."), bias == FfnBias::All, d_ff, width);
                (d_ff, bias)
            }
            Ffn::Dense { d_ff, bias, .. } => (d_ff, bias),
        };
        self.projection(&format!("{prefix}up."), bias == FfnBias::All, d_ff, width);
        self.projection(&format!("{prefix}down."), bias == FfnBias::All, width, d_ff);
    }
}
