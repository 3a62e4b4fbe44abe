//! Decoders to [`Step`]s, post-processors to ids.

use llmc_abi::tokenizer::{Section, Step, StepKind};

use super::TokenizerError;
use super::json::{Decoder, Piece, PostProcessor, PrependScheme, SequenceId};
use super::sections::Sections;
use super::steps::{put, replace, scheme};

/// Steps of the decoder; none means tokens joined by spaces.
pub fn decoder(out: &mut Sections, root: Option<Decoder>) -> Result<(), TokenizerError> {
    let mut steps = Vec::new();
    match root {
        Some(root) => add_decoder(out, root, &mut steps)?,
        None => steps.push(out.step(StepKind::Join, [0; 3], 0, " ")),
    }
    check_after_fuse(&steps)?;
    put(out, Section::Decoder, "decoder", &steps)
}

fn add_decoder(out: &mut Sections, d: Decoder, steps: &mut Vec<Step>) -> Result<(), TokenizerError> {
    let step = match d {
        Decoder::ByteLevel {} => out.step(StepKind::Unspell, [0; 3], 0, ""),
        Decoder::ByteFallback => out.step(StepKind::ByteFallback, [0; 3], 0, ""),
        Decoder::Fuse => out.step(StepKind::Fuse, [0; 3], 0, ""),
        Decoder::Metaspace(m) => {
            let drops = scheme(&m)? != PrependScheme::Never;
            out.step(StepKind::Metaspace, [drops.into(), 0, 0], 0, &m.replacement.to_string())
        }
        Decoder::Replace { pattern, content } => replace(out, &pattern, &content)?,
        Decoder::Strip { content, start, stop } => {
            let too_many = || unsupported_decoder("Strip of more than 255 characters");
            let (start, stop) =
                (u8::try_from(start).map_err(|_| too_many())?, u8::try_from(stop).map_err(|_| too_many())?);
            out.step(StepKind::Strip, [stop, 0, 0], start.into(), &content.to_string())
        }
        Decoder::Sequence { decoders } => return decoders.into_iter().try_for_each(|d| add_decoder(out, d, steps)),
    };
    steps.push(step);
    Ok(())
}

fn unsupported_decoder(found: &str) -> TokenizerError {
    let supported = "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip and Sequence of these";
    TokenizerError::Unsupported { part: "decoder", found: found.to_owned(), supported }
}

/// Once tokens are joined, the text streams: steps that would need all of it are refused.
fn check_after_fuse(steps: &[Step]) -> Result<(), TokenizerError> {
    let fuses = |s: &Step| matches!(s.kind, StepKind::Fuse | StepKind::Unspell);
    let Some(at) = steps.iter().position(fuses) else { return Ok(()) };
    match steps[at + 1..].iter().find(|s| !matches!(s.kind, StepKind::Fuse | StepKind::Strip)) {
        Some(step) => Err(unsupported_decoder(&format!("{:?} after tokens are joined", step.kind))),
        None => Ok(()),
    }
}

/// Ids that the post-processor puts before and after a text.
pub fn post_processor(root: Option<PostProcessor>) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let mut flat = Vec::new();
    root.into_iter().for_each(|p| flatten_post(p, &mut flat));
    let mut ids = (Vec::new(), Vec::new());
    let mut found = false;
    for p in flat {
        if std::mem::replace(&mut found, true) {
            return Err(unsupported_template("Sequence that adds tokens twice"));
        }
        ids = match p {
            PostProcessor::TemplateProcessing { single, special_tokens } => {
                let id_of = |id: &str| special_tokens.get(id).map(|t| t.ids.clone());
                template(&single, id_of)?
            }
            PostProcessor::RobertaProcessing { sep, cls } | PostProcessor::BertProcessing { sep, cls } => {
                (vec![cls.1], vec![sep.1])
            }
            PostProcessor::ByteLevel {} | PostProcessor::Sequence { .. } => continue,
        };
    }
    Ok(ids)
}

fn flatten_post(p: PostProcessor, flat: &mut Vec<PostProcessor>) {
    match p {
        PostProcessor::Sequence { processors } => processors.into_iter().for_each(|p| flatten_post(p, flat)),
        PostProcessor::ByteLevel {} => {}
        other => flat.push(other),
    }
}

fn unsupported_template(found: &str) -> TokenizerError {
    let supported = "templates with sequence A once and known special tokens";
    TokenizerError::Unsupported { part: "post_processor", found: found.to_owned(), supported }
}

fn template(
    pieces: &[Piece],
    id_of: impl Fn(&str) -> Option<Vec<u32>>,
) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        match piece {
            Piece::Sequence { id: SequenceId::A } if !seen => seen = true,
            Piece::Sequence { .. } => return Err(unsupported_template("template with a second sequence")),
            Piece::SpecialToken { id } => {
                let ids =
                    id_of(id).ok_or_else(|| unsupported_template(&format!("template with unknown token {id:?}")))?;
                if seen { after.extend(ids) } else { before.extend(ids) }
            }
        }
    }
    if seen { Ok((before, after)) } else { Err(unsupported_template("template without sequence A")) }
}
