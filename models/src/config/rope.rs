//! Rotary embeddings in configs, in both forms.
//!
//! Hub form: `rope_theta` and `rope_scaling: {type | rope_type, ..}` at the top. Transformers 5:
//! `rope_parameters: {rope_type, rope_theta, ..}`.

use super::{Config, limits};
use crate::error::Result;
use crate::spec::{Pairing, RopeScaling, RopeSpec, YarnRamp};

/// Base used where a config names none, as in transformers.
const DEFAULT_THETA: f64 = 10_000.0;

/// Reads the rotary embedding of a model that rotates whole heads of `head_dim` in halves.
///
/// # Errors
/// [`crate::Error::Key`] for a scaling llmc does not know, or parameters that make no sense.
pub fn read(config: &Config, head_dim: usize, context: usize) -> Result<RopeSpec> {
    if !head_dim.is_multiple_of(2) {
        return Err(config.error("head_dim", format!("is {head_dim}; a rotary embedding needs an even one")));
    }
    config.only("partial_rotary_factor", 1.0)?;
    let top_theta = config.positive_if("rope_theta")?;
    let nested = config.child("rope_parameters")?;
    let legacy = config.child("rope_scaling")?;
    if nested.is_some() && legacy.is_some() {
        return Err(config.error("rope_scaling", "stands beside rope_parameters; keep one of them"));
    }
    let mut theta = top_theta;
    if let Some(nested) = &nested {
        nested.only("partial_rotary_factor", 1.0)?;
        theta = nested.positive_if("rope_theta")?.or(top_theta);
        if let Some(top) = top_theta.filter(|t| Some(*t) != theta) {
            return Err(config.error("rope_theta", format!("is {top}, but rope_parameters.rope_theta is another")));
        }
    }
    let scaling = match nested.or(legacy) {
        None => RopeScaling::None,
        Some(parameters) => {
            let scaling = scaling(&parameters, context)?;
            parameters.finish(&[])?;
            scaling
        }
    };
    Ok(RopeSpec { theta: theta.unwrap_or(DEFAULT_THETA), rotary_dim: head_dim, pairing: Pairing::Halves, scaling })
}

fn scaling(c: &Config, context: usize) -> Result<RopeScaling> {
    let (new, old) = (c.text_if("rope_type")?, c.text_if("type")?);
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        return Err(c.error("type", format!("is {old:?}, but rope_type is {new:?}")));
    }
    match new.or(old).unwrap_or("default") {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: c.positive("factor")? }),
        "llama3" => llama3(c),
        "yarn" => yarn(c, context),
        other => Err(c.error(
            if new.is_some() { "rope_type" } else { "type" },
            format!("is {other:?}; llmc supports default, linear, llama3 and yarn"),
        )),
    }
}

fn llama3(c: &Config) -> Result<RopeScaling> {
    let (low_freq_factor, high_freq_factor) = (c.positive("low_freq_factor")?, c.positive("high_freq_factor")?);
    if high_freq_factor <= low_freq_factor {
        return Err(c.error(
            "high_freq_factor",
            format!("is {high_freq_factor}, expected more than low_freq_factor, which is {low_freq_factor}"),
        ));
    }
    let original_context = c.size("original_max_position_embeddings", limits::CONTEXT)?;
    Ok(RopeScaling::Llama3 { factor: c.positive("factor")?, low_freq_factor, high_freq_factor, original_context })
}

fn yarn(c: &Config, context: usize) -> Result<RopeScaling> {
    let factor = c.positive("factor")?;
    let given = c.positive_if("attention_factor")?;
    let (mscale, mscale_all_dim) = (c.positive_if("mscale")?, c.positive_if("mscale_all_dim")?);
    let magnitude = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::log(factor) + 1.0 };
    let derived = match (mscale, mscale_all_dim) {
        (Some(m), Some(all)) => magnitude(m) / magnitude(all),
        _ => magnitude(1.0),
    };
    let ramp = if c.flag_or("truncate", true)? { YarnRamp::Whole } else { YarnRamp::Exact };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: c.positive_if("beta_fast")?.unwrap_or(32.0),
        beta_slow: c.positive_if("beta_slow")?.unwrap_or(1.0),
        attention_factor: given.unwrap_or(derived),
        original_context: c.size_if("original_max_position_embeddings", limits::CONTEXT)?.unwrap_or(context),
        ramp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn rope(text: &str) -> Result<RopeSpec> {
        read(&Config::parse(Path::new("config.json"), text.as_bytes()).unwrap(), 32, 128)
    }

    #[test]
    fn both_forms_agree() {
        for (hub, v5) in [
            ("{}", r#"{"rope_parameters":{"rope_type":"default","rope_theta":10000}}"#),
            (
                r#"{"rope_theta":5e5,"rope_scaling":{"type":"linear","factor":2.5}}"#,
                r#"{"rope_parameters":{"rope_type":"linear","type":"linear","rope_theta":5e5,"factor":2.5}}"#,
            ),
            (
                r#"{"rope_scaling":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32}}"#,
                r#"{"rope_parameters":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32,"rope_theta":10000.0}}"#,
            ),
        ] {
            assert_eq!(rope(hub).unwrap(), rope(v5).unwrap());
        }
    }

    #[test]
    fn refuses() {
        for (text, message) in [
            (r#"{"rope_scaling":{"type":"longrope"}}"#, "rope_scaling.type: is \"longrope\""),
            (r#"{"rope_scaling":{"rope_type":"dynamic","factor":2}}"#, "rope_scaling.rope_type: is \"dynamic\""),
            (r#"{"rope_scaling":{"type":"linear"}}"#, "rope_scaling.factor: is missing"),
            (r#"{"rope_scaling":{"type":"linear","factor":0}}"#, "rope_scaling.factor: is 0"),
            (r#"{"rope_scaling":{"type":"linear","factor":2,"x":1}}"#, "rope_scaling.x: is 1"),
            (r#"{"rope_scaling":{"type":"linear","rope_type":"yarn"}}"#, "but rope_type is"),
            (
                r#"{"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4}}"#,
                "high_freq_factor: is 4",
            ),
            (r#"{"rope_scaling":3}"#, "rope_scaling: is 3, expected an object"),
            (r#"{"rope_theta":1,"rope_parameters":{"rope_theta":2}}"#, "rope_theta: is 1"),
            (r#"{"rope_scaling":{},"rope_parameters":{}}"#, "stands beside"),
            (r#"{"partial_rotary_factor":0.5}"#, "partial_rotary_factor: is 0.5"),
        ] {
            let e = rope(text).unwrap_err().to_string();
            assert!(e.contains(message), "wanted {message}, got {e}");
        }
    }
}
