//! One layer: `hidden, kv -> hidden, kv`.

use super::{BlockBuilder, Built, Weights, attention, ffn, per_token};
use crate::build::BuildOptions;
use crate::error::Result;
use crate::spec::{LayerSpec, Mixer, Residual, RopeSpec};
use llmc_ir::{Op, Value};

/// The block `name` for a layer whose weights are named `prefix..`.
pub fn layer(
    name: &str,
    prefix: &str,
    spec: &LayerSpec,
    width: usize,
    ropes: &[&RopeSpec],
    weights: &Weights,
    options: &BuildOptions,
) -> Result<Built> {
    let mut b = BlockBuilder::new(name, prefix, weights, options);
    let hidden = b.input("hidden", per_token(&[width]).into())?;
    let hidden = match spec.residual {
        Residual::PreNorm { mixer: mixer_norm, ffn: ffn_norm } => {
            let x = b.norm(mixer_norm, "attn.norm", hidden)?;
            let mixed = mixer(&mut b, &spec.mixer, ropes, x)?;
            let hidden = b.push(Op::Add {}, &[hidden, mixed])?;
            let x = b.norm(ffn_norm, "ffn.norm", hidden)?;
            let x = b.round(x)?;
            let y = ffn::ffn(&mut b, &spec.ffn, x)?;
            b.push(Op::Add {}, &[hidden, y])?
        }
    };
    b.output("hidden", hidden);
    Ok(b.finish())
}

fn mixer(b: &mut BlockBuilder, mixer: &Mixer, ropes: &[&RopeSpec], x: Value) -> Result<Value> {
    let x = b.round(x)?;
    match mixer {
        Mixer::Attention(spec) => attention::attention(b, spec, ropes, x),
    }
}
