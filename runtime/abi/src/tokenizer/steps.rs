//! What a normalizer, pre-tokenizer or decoder does, one after another.
//!
//! A step is four bytes (kind and three options) and three u32 (an argument, offset and length in
//! [`super::Section::Text`]). Several constructs of tokenizer.json become a few kinds here.

use super::bytes::read_u32;

/// Bytes of a step.
pub const STEP_BYTES: usize = 16;

macro_rules! kinds {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $value),* }
        impl $name {
            /// The one with this number.
            pub fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// What a step does. Where it says "dfa", `argument` is its byte in [`super::Section::Dfas`].
    StepKind {
        /// Canonical composition.
        Nfc = 0,
        /// Canonical decomposition.
        Nfd = 1,
        /// Compatibility composition.
        Nfkc = 2,
        /// Compatibility decomposition.
        Nfkd = 3,
        /// Lower case of each character on its own.
        Lowercase = 4,
        /// Remove white space at the start (option 0) and the end (option 1).
        Trim = 5,
        /// Put the text before what is not empty.
        Prepend = 6,
        /// Put the text before what does not start with it; with option 0 only at the start of the input.
        PrependMissing = 7,
        /// Replace matches of the dfa by the text.
        Replace = 8,
        /// Cut at matches of the dfa; option 0 is a [`Behavior`], option 1 inverts matches and gaps.
        Split = 9,
        /// Spell bytes as characters, for steps that follow a byte-level pre-tokenizer.
        Spell = 10,
        /// Spelled bytes back to bytes; broken UTF-8 becomes U+FFFD. Fuses.
        Unspell = 11,
        /// Runs of `<0xNN>` tokens to the characters their bytes make.
        ByteFallback = 12,
        /// Join all tokens.
        Fuse = 13,
        /// Join all tokens with the text between them.
        Join = 14,
        /// Remove up to `argument` characters equal to the text at the start of each token, and
        /// up to option 0 at its end.
        Strip = 15,
        /// The text becomes a space, or with option 0 nothing in the first token.
        Metaspace = 16,
    }
}

kinds! {
    /// What becomes of matches where a text is cut.
    Behavior {
        /// A match is a word of its own.
        Isolated = 0,
        /// Matches are dropped.
        Removed = 1,
        /// A match joins what is before it.
        MergedWithPrevious = 2,
        /// A match joins what is after it.
        MergedWithNext = 3,
        /// Neighbouring matches are one word.
        Contiguous = 4,
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Its options; unused ones are 0.
    pub options: [u8; 3],
    /// A number, as [`StepKind`] says.
    pub argument: u32,
    /// Byte offset in the text section.
    pub text_at: u32,
    /// Bytes of text.
    pub text_len: u32,
}

impl Step {
    /// The step's bytes.
    pub fn to_bytes(&self) -> [u8; STEP_BYTES] {
        let mut bytes = [0; STEP_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1..4].copy_from_slice(&self.options);
        for (i, v) in [self.argument, self.text_at, self.text_len].into_iter().enumerate() {
            bytes[4 + 4 * i..8 + 4 * i].copy_from_slice(&v.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Step> {
        Some(Step {
            kind: StepKind::from_u8(*bytes.first()?)?,
            options: *bytes.get(1..)?.first_chunk()?,
            argument: read_u32(bytes, 4)?,
            text_at: read_u32(bytes, 8)?,
            text_len: read_u32(bytes, 12)?,
        })
    }
}

/// View of a section of steps.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a>(pub &'a [u8]);

impl Steps<'_> {
    /// The steps in order; `None` stands for one of unknown kind.
    pub fn iter(&self) -> impl Iterator<Item = Option<Step>> + '_ {
        self.0.chunks(STEP_BYTES).map(Step::parse)
    }
}
