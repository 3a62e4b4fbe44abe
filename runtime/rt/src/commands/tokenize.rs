//! `tokenize`: a text's tokens, in the form that `--tokens` and `detokenize` take.

use serde_json::json;

use super::text_argument;
use crate::artifact::Artifact;
use crate::cli::Tokenize;
use crate::error::Result;
use crate::output;
use crate::text::Text;

/// Runs the command.
pub fn run(args: &Tokenize) -> Result<()> {
    let input = text_argument(&args.text)?;
    let text = Text::open(&Artifact::open()?)?;
    let ids = match (args.plain, args.special) {
        (true, false) => text.encode_plain(&input),
        (true, true) => text.encode_prompt(&input),
        (false, special) => text.encode(&input, special),
    };
    if args.json {
        let pieces: Vec<_> = ids.iter().map(|id| text.spelling(*id)).collect();
        return output::print_line(&json!({ "ids": ids, "tokens": pieces }).to_string());
    }
    output::print_line(&ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}
