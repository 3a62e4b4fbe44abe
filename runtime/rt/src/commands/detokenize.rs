//! `detokenize`: the text of tokens.

use serde_json::json;

use super::token_list;
use crate::artifact::Artifact;
use crate::cli::Detokenize;
use crate::error::{Error, Result};
use crate::output;
use crate::text::Text;

/// Runs the command.
pub fn run(args: &Detokenize) -> Result<()> {
    let ids = token_list(&args.ids.join(","))?;
    let artifact = Artifact::open()?;
    let text = Text::open(&artifact)?;
    let vocab = artifact.manifest.model.vocab;
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
        return Err(Error::usage(format!(
            "token {id} is not in the vocabulary; tokens are 0 to {}",
            vocab.saturating_sub(1)
        )));
    }
    let decoded = text.decode(&ids, args.skip_special);
    if args.json {
        return output::print_line(&json!({ "text": decoded }).to_string());
    }
    output::print_line(&decoded)
}
