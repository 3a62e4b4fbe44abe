//! What can be wrong with a tokenizer.json.

/// Why a tokenizer.json cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not JSON, or not of the shape of a tokenizer.
    #[error("tokenizer.json: {0}; is the file complete?")]
    Json(#[from] serde_json::Error),
    /// A part that llmc cannot compile.
    #[error("tokenizer.json: {part} {found} is not supported yet; supported: {supported}")]
    Unsupported {
        /// Where it stands: `model`, `normalizer` and so on.
        part: &'static str,
        /// What was found.
        found: String,
        /// What would do.
        supported: &'static str,
    },
    /// A part with fields missing or of the wrong type, or of an unknown type.
    #[error("tokenizer.json: {part}: {source}")]
    Part {
        /// Where it stands.
        part: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A regular expression that a table cannot express.
    #[error("tokenizer.json: pattern {pattern:?}: {reason}")]
    Pattern {
        /// The whole expression.
        pattern: String,
        /// The construct and why it is refused.
        reason: String,
    },
    /// Ids, tokens or merges that contradict each other.
    #[error("tokenizer.json: {0}")]
    Inconsistent(String),
    /// Refused by the `tokenizers` library.
    #[error("tokenizer.json: the tokenizers library refuses it: {0}")]
    Library(String),
}
