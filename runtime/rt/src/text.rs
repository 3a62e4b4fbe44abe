//! Text in and out of the model: the compiled tokenizer and the chat template of an artifact.

use llmc_abi::manifest::TextInfo;

use crate::artifact::Artifact;
use crate::chat::{ChatTemplate, Message, Part};
use crate::error::{Error, Result};
use crate::generate::Stream;
use crate::tokenizer::{Piece, StreamDecoder, Tokenizer};

/// The tokenizer and what goes with it.
pub struct Text {
    tokenizer: Tokenizer<'static>,
    info: TextInfo,
}

impl Text {
    /// The artifact's tokenizer.
    ///
    /// # Errors
    ///
    /// Exit code 3 where there is none, or it is damaged.
    pub fn open(artifact: &Artifact) -> Result<Self> {
        Self::new(artifact.tokenizer()?, artifact.manifest.text.clone())
    }

    /// A tokenizer from its compiled bytes.
    pub fn new(bytes: &'static [u8], info: TextInfo) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|e| Error::input(format!("the artifact's tokenizer is broken: {e}; compile it again")))?;
        Ok(Self { tokenizer, info })
    }

    /// Whether the model has a chat template.
    pub fn has_template(&self) -> bool {
        self.info.chat_template.is_some()
    }

    /// Tokens of a text in which control tokens may be spelled; `special` adds those around a text.
    pub fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        self.tokenizer.encode(text, special)
    }

    /// Tokens of mere text.
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_plain(text)
    }

    /// Tokens of a prompt that is continued as it is: mere text between the tokens that the
    /// tokenizer puts before and after.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.tokenizer.add_special(&self.tokenizer.encode_plain(text))
    }

    /// Tokens of a conversation, up to where the assistant answers.
    ///
    /// # Errors
    ///
    /// Exit code 3 where the template is broken, 1 where it refuses the conversation.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let source = self.info.chat_template.as_deref().unwrap_or("");
        let template = ChatTemplate::new(source, &self.info.special, self.specials())?;
        let parts = template.render(messages, true)?;
        Ok(self.tokenizer.encode_mixed(&parts.iter().map(piece).collect::<Vec<_>>()))
    }

    /// The text of tokens.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> String {
        self.tokenizer.decode(tokens, skip_special)
    }

    /// A token as tokenizer.json spells it; empty for ids that are not used.
    pub fn spelling(&self, token: u32) -> String {
        self.tokenizer.id_to_token(token).map(String::from).unwrap_or_default()
    }

    /// A stream of an answer's text, without control tokens.
    pub fn stream(&self) -> impl Stream + '_ {
        TextStream(Some(StreamDecoder::new(&self.tokenizer, true)))
    }

    /// Spellings of all control tokens.
    fn specials(&self) -> Vec<String> {
        let special = (0..self.tokenizer.vocab_size()).filter(|id| self.tokenizer.is_special(*id));
        special.filter_map(|id| self.tokenizer.id_to_token(id)).map(String::from).collect()
    }
}

/// A part of a prompt as the tokenizer takes it.
fn piece(part: &Part) -> Piece<'_> {
    match part.special {
        true => Piece::Special(&part.text),
        false => Piece::Text(&part.text),
    }
}

/// A decoder until it is finished.
struct TextStream<'t>(Option<StreamDecoder<'t, 'static>>);

impl Stream for TextStream<'_> {
    fn push(&mut self, token: u32, out: &mut String) {
        if let Some(decoder) = &mut self.0 {
            decoder.push_to(token, out);
        }
    }

    fn finish(&mut self, out: &mut String) {
        if let Some(decoder) = self.0.take() {
            out.push_str(&decoder.finish());
        }
    }
}
