//! Steps on the fake driver, whose kernel `step` makes a token of the one before and its position.

use llmc_abi::Manifest;
use llmc_abi::device::{DeviceImage, DeviceKind, write};
use llmc_abi::manifest::{GroupInfo, Keep, KvInfo, ModelInfo, PhaseInfo, StepInfo, VERSION, VariantInfo};
use llmc_rt::cuda::step::GpuStep;
use llmc_rt::decode::Decoder;
use llmc_rt::engine::{Engine, Options, Rows, Runner};
use llmc_rt::error::Result;
use llmc_rt::generate::{Finish, Numbers, Outcome, Request, generate};
use llmc_rt::sampler::Sampling;

const VOCAB: usize = 97;
const CONTEXT: usize = 50;
const PROMPT: [u32; 3] = [1, 2, 3];
/// Greedy, chosen by the host: a penalty is its business. This one changes no order among few tokens.
const HOST: Sampling =
    Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.000_001, seed: 0 };

fn group() -> GroupInfo {
    GroupInfo { kernel: "step".into(), threads: 256, tokens: 16, sync_bytes: 256 }
}

fn manifest(keep: Option<Keep>) -> Manifest {
    Manifest {
        version: VERSION,
        model: ModelInfo { vocab: VOCAB, context: CONTEXT, ..Default::default() },
        step: StepInfo { tokens: 16, rows: 8 },
        kv: KvInfo { dtype: "f32".into(), page_positions: 4, page_bytes: 64, keep, ..KvInfo::default() },
        variants: vec![VariantInfo {
            arena_bytes: 64,
            phases: vec![PhaseInfo::default()],
            group: Some(group()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn engine(keep: Option<Keep>) -> Result<Engine> {
    let text = DeviceImage {
        step: 0,
        kind: DeviceKind::Ptx,
        arch: 80,
        specific: false,
        shared_bytes: 1024,
        bytes: b"step".to_vec(),
    };
    let step = GpuStep::open(0, &write(&[text]), vec![group()], &[0; 64])?;
    let options = Options { threads: Some(1), ..Default::default() };
    // SAFETY: the kernel reads no weights, and the manifest is that of its variant.
    unsafe { Engine::new(&manifest(keep), Runner::Gpu(Box::new(step)), &[], &options) }
}

/// A generation, its text and the positions that the sequence then has.
fn answer(engine: &mut Engine, sampling: Sampling, limits: (usize, &[String], &[u32])) -> (Outcome, String, usize) {
    let (max_tokens, stops, end) = limits;
    engine.truncate(0, 0);
    let mut text = String::new();
    let mut emit = |piece: &str| {
        text.push_str(piece);
        Ok(())
    };
    let request = Request { prompt: &PROMPT, max_tokens, sampling, stops, end };
    let outcome = generate(engine, 0, &request, &mut Numbers::default(), &mut emit).expect("generates");
    (outcome, text, engine.positions(0))
}

/// The tokens of the model after the prompt.
fn tokens(count: usize) -> Vec<u32> {
    let mut tokens = vec![PROMPT[2]];
    for position in PROMPT.len() - 1..PROMPT.len() - 1 + count {
        tokens.push((tokens[tokens.len() - 1] * 31 + position as u32 * 7 + 1) % VOCAB as u32);
    }
    tokens.split_off(1)
}

/// The scenario.
pub fn decode() -> Result<()> {
    let mut engine = engine(None)?;
    assert!(engine.own_choice(&Sampling::default()).is_some() && engine.own_choice(&HOST).is_none());
    ends(&mut engine);
    steps(&mut engine)?;
    decoder(&mut engine)
}

/// The scenario of a text without end, whose pages are forgotten.
pub fn decode_without_end() -> Result<()> {
    let mut engine = engine(Some(Keep { sinks: 1, window: 2, by_use: false }))?;
    let own = answer(&mut engine, Sampling::default(), (100, &[], &[]));
    let host = answer(&mut engine, HOST, (100, &[], &[]));
    assert_eq!(own.0.tokens.len(), 100);
    assert_eq!((own.0.tokens, own.1, own.2), (host.0.tokens, host.1, host.2));
    // The host's positions pass the context; the kernel's, which its tokens follow from, stay in three pages of four.
    assert_eq!(engine.positions(0), PROMPT.len() + 99);
    Ok(())
}

/// Every way to end leaves the same tokens, text and positions whoever chooses.
fn ends(engine: &mut Engine) {
    let whole = tokens(CONTEXT);
    let (length, stop) = (20, [format!("{},{}", whole[7], whole[8])]);
    let cases: [(usize, &[String], &[u32], Finish); 5] = [
        (length, &[], &[], Finish::Length),
        (1, &[], &[], Finish::Length),
        (1000, &[], &[], Finish::Context),
        (length, &stop, &[], Finish::Stop),
        (length, &[], &whole[5..6], Finish::EndOfText),
    ];
    for (max, stops, end, finish) in cases {
        let own = answer(engine, Sampling::default(), (max, stops, end));
        let host = answer(engine, HOST, (max, stops, end));
        assert_eq!((own.0.finish, host.0.finish), (finish, finish));
        assert_eq!(own.0.tokens, whole[..own.0.tokens.len()], "{finish:?}");
        assert_eq!((own.0.tokens, own.1, own.2), (host.0.tokens, host.1, host.2), "{finish:?}");
    }
}

/// Two steps under way, whose tokens come in order; a third one is refused.
fn steps(engine: &mut Engine) -> Result<()> {
    let own = engine.own_choice(&Sampling::default()).expect("a GPU");
    engine.truncate(0, 0);
    engine.extend(0, &PROMPT[..2], Rows::None)?;
    engine.begin(0, Some(PROMPT[2]), &own)?;
    engine.begin(0, None, &own)?;
    assert!(engine.begin(0, None, &own).is_err(), "a third step");
    assert_eq!(engine.positions(0), 4);
    let expected = tokens(3);
    assert_eq!([engine.chosen()?, engine.chosen()?], expected[..2]);
    assert!(engine.chosen().is_err(), "no step is under way");
    engine.begin(0, Some(expected[1]), &own)?;
    engine.undo(0, 1);
    assert_eq!(engine.positions(0), 4);
    engine.begin(0, Some(expected[1]), &own)?;
    assert_eq!(engine.chosen()?, expected[2]);
    Ok(())
}

fn decoder(engine: &mut Engine) -> Result<()> {
    engine.truncate(0, 0);
    let mut decoder = Decoder::new(engine, Sampling::default());
    let expected = tokens(10);
    let mut token = decoder.first(engine.prefill(0, &PROMPT, 0, || Ok(()))?)?;
    for next in &expected[1..] {
        token = decoder.next(engine, 0, token, true)?;
        assert_eq!(token, *next);
    }
    assert_eq!((engine.positions(0), decoder.positions(engine, 0)), (13, 12));
    decoder.finish(engine, 0);
    assert_eq!(engine.positions(0), 12);
    Ok(())
}
