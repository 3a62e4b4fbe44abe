//! What goes behind an artifact's code: the manifest, the tokenizer, and weights packed on the way.

use crate::compile::Front;
use crate::progress::Progress;
use llmc_abi::Manifest;
use llmc_link::PayloadSource;
use llmc_lower::{Plan, pack};
use std::io::Write;

/// The payload of one artifact.
pub struct Payload<'a> {
    front: &'a Front,
    plan: &'a Plan,
    manifest: Vec<u8>,
    tokenizer: Option<Vec<u8>>,
    device: Option<Vec<u8>>,
    progress: &'a Progress,
}

impl<'a> Payload<'a> {
    /// A payload that packs `front`'s weights as `plan` says.
    pub fn new(
        front: &'a Front,
        plan: &'a Plan,
        manifest: &Manifest,
        (tokenizer, device): (Option<Vec<u8>>, Option<Vec<u8>>),
        progress: &'a Progress,
    ) -> Payload<'a> {
        let manifest = serde_json::to_vec(manifest).expect("a manifest has string keys and finite numbers");
        Payload { front, plan, manifest, tokenizer, device, progress }
    }
}

impl PayloadSource for Payload<'_> {
    fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    fn tokenizer(&self) -> Option<&[u8]> {
        self.tokenizer.as_deref()
    }

    fn device(&self) -> Option<&[u8]> {
        self.device.as_deref()
    }

    fn weights_len(&self) -> u64 {
        self.plan.weights.bytes as u64
    }

    fn write_weights(&mut self, to: &mut dyn Write) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let bar = self.progress.bytes("packing weights", self.weights_len());
        let mut written = 0u64;
        let params = self.front.params();
        pack::pack(&self.front.module, &self.plan.weights, &params, &mut |offset, bytes| {
            zeros(to, offset - written)?;
            to.write_all(bytes)?;
            written = offset + bytes.len() as u64;
            bar.set(written);
            Ok(())
        })?;
        zeros(to, self.weights_len() - written)?;
        bar.finish();
        Ok(())
    }
}

/// Writes `n` zero bytes.
fn zeros(to: &mut dyn Write, n: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), n), to).map(drop)
}
