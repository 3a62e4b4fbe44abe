//! Binding: which stored tensor gives which canonical weight, and how.
//!
//! A family lists [`Rule`]s; a rule applies where the spec calls for its weights. Everything a
//! file holds must be used or be known to be inert, and everything the spec calls for must be in
//! a file with the right shape. What a file transposes or joins stays so: the weight is then
//! reached through the [`Transform`]s, which the builder turns into ops.

use crate::checkpoint::TensorSet;
use crate::error::{Error, Result, quoted};
use crate::spec::{ArchSpec, HeadWeight};
use crate::weights::{self, WeightShapes};
use llmc_ir::TensorType;
use std::collections::{BTreeMap, BTreeSet};

/// A stored tensor's name and the weights it gives; `{}` stands for the layer's number.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name in the file.
    pub tensor: &'static str,
    /// Canonical name of the tensor as a parameter.
    pub param: &'static str,
    /// Canonical weights, in the order in which their rows are joined.
    pub parts: &'static [&'static str],
    /// How the file stores them.
    pub layout: Layout,
}

/// How a file stores a projection's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A row for each output element, as llmc has it.
    Rows,
    /// A column for each output element.
    Columns,
}

/// A way from a stored tensor to a weight; applied in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Swaps the two dimensions.
    Transpose,
    /// Takes a range of rows.
    Rows {
        /// First row.
        start: usize,
        /// Number of rows.
        len: usize,
    },
}

/// How a canonical weight is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightRef {
    /// Canonical name of the parameter as stored.
    pub param: String,
    /// Type of the parameter as stored.
    pub ty: TensorType,
    /// What leads from the parameter to the weight.
    pub transforms: Vec<Transform>,
}

/// A parameter as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Name in the file.
    pub tensor: String,
    /// Type in the file.
    pub ty: TensorType,
}

/// What binding finds.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Parameters, by canonical name.
    pub params: BTreeMap<String, Stored>,
    /// Weights, by canonical name.
    pub weights: BTreeMap<String, WeightRef>,
}

/// What a family says about the names in its files.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// One rule for each tensor.
    pub rules: &'static [Rule],
    /// A prefix that files saved from the model without its head leave out.
    pub prefix: &'static str,
    /// Tensors some files hold that are no weights: constants and buffers.
    pub inert: &'static [&'static str],
    /// The tensor that repeats the embedding in some files of tied models.
    pub head: &'static str,
}

/// A tensor stored as llmc has it.
pub const fn same(tensor: &'static str, parts: &'static [&'static str; 1]) -> Rule {
    Rule { tensor, param: parts[0], parts, layout: Layout::Rows }
}

/// A tensor stored transposed.
pub const fn transposed(tensor: &'static str, parts: &'static [&'static str; 1]) -> Rule {
    Rule { tensor, param: parts[0], parts, layout: Layout::Columns }
}

/// A tensor that joins several weights.
pub const fn joined(tensor: &'static str, param: &'static str, layout: Layout, parts: &'static [&'static str]) -> Rule {
    Rule { tensor, param, parts, layout }
}

/// Finds every weight of `spec` in `tensors`.
///
/// # Errors
/// [`Error::Tensor`] for a tensor that is missing, has another shape or is not expected;
/// [`Error::Unsupported`] for one of an element type llmc cannot read.
pub fn bind(spec: &ArchSpec, names: &Names, tensors: &TensorSet) -> Result<Bindings> {
    let shapes = weights::shapes(spec);
    let bare = !tensors.names().any(|n| n.starts_with(names.prefix));
    let mut binder = Binder { tensors, shapes: &shapes, out: Bindings::default(), used: BTreeSet::new() };
    for rule in names.rules {
        let rule =
            Rule { tensor: if bare { rule.tensor.trim_start_matches(names.prefix) } else { rule.tensor }, ..*rule };
        let layers = if rule.param.contains("{}") { spec.layers.len() } else { 1 };
        for layer in 0..layers {
            binder.apply(&rule, layer)?;
        }
    }
    if let Some(name) = shapes.keys().find(|w| !binder.out.weights.contains_key(*w)) {
        return Err(Error::Options(format!("family {} has no rule for the weight {name}", spec.family)));
    }
    if spec.head.weight == HeadWeight::Tied {
        binder.tie_head(names)?;
    }
    binder.refuse_unused(names, bare)?;
    Ok(binder.out)
}

struct Binder<'a> {
    tensors: &'a TensorSet,
    shapes: &'a WeightShapes,
    out: Bindings,
    used: BTreeSet<String>,
}

impl Binder<'_> {
    /// Applies a rule for one layer, if the spec calls for its weights.
    fn apply(&mut self, rule: &Rule, layer: usize) -> Result<()> {
        let fill = |pattern: &str| pattern.replace("{}", &layer.to_string());
        let parts: Vec<(String, &Vec<usize>)> = rule
            .parts
            .iter()
            .filter_map(|p| self.shapes.get_key_value(&fill(p)))
            .map(|(k, v)| (k.clone(), v))
            .collect();
        if parts.len() < rule.parts.len() {
            return Ok(());
        }
        let (tensor, param) = (fill(rule.tensor), fill(rule.param));
        let shape = stored_shape(rule.layout, &parts);
        let ty = self.find(&tensor, &shape)?;
        let mut start = 0;
        for (weight, shape) in &parts {
            let mut transforms = Vec::new();
            if rule.layout == Layout::Columns && shape.len() == 2 {
                transforms.push(Transform::Transpose);
            }
            if parts.len() > 1 {
                transforms.push(Transform::Rows { start, len: shape[0] });
            }
            start += shape[0];
            let reference = WeightRef { param: param.clone(), ty: ty.clone(), transforms };
            self.out.weights.insert(weight.clone(), reference);
        }
        self.out.params.insert(param, Stored { tensor: tensor.clone(), ty });
        self.used.insert(tensor);
        Ok(())
    }

    /// The type of a stored tensor, which must have this shape.
    fn find(&self, tensor: &str, shape: &[usize]) -> Result<TensorType> {
        let Some(file) = self.tensors.holder(tensor) else {
            let message = format!("is missing; the config calls for it with shape {shape:?}");
            return Err(Error::tensor(self.tensors.path(), tensor, message));
        };
        let found = file.shape(tensor).unwrap_or(&[]);
        if found != shape {
            let message = format!("has shape {found:?}, but the config calls for {shape:?}");
            return Err(Error::tensor(file.path(), tensor, message));
        }
        file.weight_type(tensor)
    }

    /// Makes the head the embedding. A stored head must repeat it bit for bit.
    fn tie_head(&mut self, names: &Names) -> Result<()> {
        let embedding = self.out.weights.get("embed.tokens").cloned();
        if let Some((embedding, file)) = embedding.as_ref().zip(self.tensors.holder(names.head)) {
            let stored = &self.out.params[&embedding.param];
            if file.bytes(names.head) != self.tensors.bytes(&stored.tensor) {
                let message = "differs from the embedding, but the config says that they are tied \
                               (tie_word_embeddings); set it to false if the head is its own";
                return Err(Error::tensor(file.path(), names.head, message));
            }
            self.used.insert(names.head.into());
        }
        self.out.weights.extend(embedding.map(|e| ("head.weight".into(), e)));
        Ok(())
    }

    /// Every tensor is used or known to be inert.
    fn refuse_unused(&self, names: &Names, bare: bool) -> Result<()> {
        let inert = |tensor: &str| {
            names.inert.iter().any(|p| matches(if bare { p.trim_start_matches(names.prefix) } else { p }, tensor))
        };
        let unused: Vec<&str> = self.tensors.names().filter(|n| !self.used.contains(*n) && !inert(n)).collect();
        let Some(first) = unused.first() else { return Ok(()) };
        let path = self.tensors.holder(first).map_or(self.tensors.path(), |f| f.path());
        let others = match unused.len() - 1 {
            0 => String::new(),
            n => format!(" (nor do {n} more, the last {})", quoted(unused[n])),
        };
        let message = format!("does not belong to a model of this config{others}; is the config the right one?");
        Err(Error::tensor(path, first, message))
    }
}

/// Shape of a tensor that joins `parts` along their rows.
fn stored_shape(layout: Layout, parts: &[(String, &Vec<usize>)]) -> Vec<usize> {
    let mut shape: Vec<usize> = parts.first().map(|(_, s)| (*s).clone()).unwrap_or_default();
    if let Some(rows) = shape.first_mut() {
        *rows = parts.iter().map(|(_, s)| s[0]).sum();
    }
    if layout == Layout::Columns {
        shape.reverse();
    }
    shape
}

/// True if `name` is `pattern` with a number in place of `{}`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once("{}") {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|n| n.strip_suffix(after))
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("h.{}.attn.bias", "h.12.attn.bias"));
        assert!(!matches("h.{}.attn.bias", "h..attn.bias"));
        assert!(!matches("h.{}.attn.bias", "h.x.attn.bias"));
        assert!(!matches("h.{}.attn.bias", "h.1.attn.c_attn.bias"));
    }

    #[test]
    fn joined_tensors_have_all_rows() {
        let (q, k) = (vec![8, 4], vec![2, 4]);
        let parts = [("q".to_string(), &q), ("k".to_string(), &k)];
        assert_eq!(stored_shape(Layout::Rows, &parts), [10, 4]);
        assert_eq!(stored_shape(Layout::Columns, &parts), [4, 10]);
    }
}
