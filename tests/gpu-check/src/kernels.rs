//! Kernels by themselves: what they read, and what they should write, computed elsewhere in f64 with a bound on what
//! rounding may do to each number.

use crate::bundle;
use llmc_abi::StepArgs;
use llmc_abi::step::STEP_FIELDS;
use llmc_rt::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file with all kernels of a bundle.
pub const KERNELS: &str = "kernels";

/// A kernel, alone or with others that its result needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelCheck {
    /// What it is called.
    pub name: String,
    /// Images, as in an artifact.
    pub code: Vec<u8>,
    /// Symbol of the kernel in them.
    pub kernel: String,
    /// Threads of a block.
    pub threads: usize,
    /// What it is tried on.
    pub tries: Vec<Try>,
}

/// Memory that a kernel is given, and what it should leave there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Try {
    /// Contents of buffers, by their fields in [`StepArgs`]. What a kernel is to write holds no number.
    pub buffers: Vec<(String, Vec<u8>)>,
    /// The other fields.
    pub counts: Vec<(String, u64)>,
    /// What is expected.
    pub expected: Vec<Expected>,
}

/// How a number stands in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Elem {
    /// binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// binary16.
    F16,
    /// An integer of 32 bits.
    I32,
    /// An integer of 8 bits, times a scale in binary32.
    ScaledI8,
    /// An e4m3fn over 256, times a scale in binary32.
    ScaledE4m3,
}

/// Numbers that a kernel should write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expected {
    /// The buffer.
    pub buffer: String,
    /// What they are.
    pub elem: Elem,
    /// Where in the buffer each is.
    pub at: Vec<u32>,
    /// Where its scale is, if it has one.
    pub scales: Vec<u32>,
    /// What it should be.
    pub want: Vec<f64>,
    /// How far from that it may be.
    pub bound: Vec<f64>,
}

/// What was found of a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The largest error of all tries, of its bound.
    pub worst: f64,
    /// The first number that is too far off.
    pub wrong: Option<String>,
    /// Numbers compared.
    pub numbers: usize,
    /// Whether a second run had the bits of the first.
    pub same_bits: bool,
}

impl Found {
    /// Nothing yet.
    pub fn new(name: &str) -> Found {
        Found { name: name.into(), worst: 0.0, wrong: None, numbers: 0, same_bits: true }
    }

    /// Whether all is as it should be.
    pub fn holds(&self) -> bool {
        self.wrong.is_none() && self.same_bits && self.numbers > 0
    }

    /// Takes in what try number `number` has left in a buffer.
    pub fn compare(&mut self, number: usize, expected: &Expected, buffer: &[u8]) {
        for (i, (want, bound)) in expected.want.iter().zip(&expected.bound).enumerate() {
            let found = expected.number(i, buffer);
            let off = (found - want).abs() / bound.max(f64::MIN_POSITIVE);
            // What is no number is worse than any.
            self.worst = if off <= self.worst { self.worst } else { off };
            if !matches!(off.partial_cmp(&1.0), Some(o) if o.is_le()) && self.wrong.is_none() {
                let (of, at) = (&expected.buffer, expected.at[i]);
                self.wrong =
                    Some(format!("try {number}: {found} at byte {at} of {of}; it is {want}, or {bound:.1e} from that"));
            }
        }
        self.numbers += expected.want.len();
    }
}

impl Expected {
    /// Number `i` of those found.
    fn number(&self, i: usize, buffer: &[u8]) -> f64 {
        let word = |at: u32| u32::from_le_bytes(buffer[at as usize..][..4].try_into().expect("four bytes"));
        let half = |at: u32| u16::from_le_bytes(buffer[at as usize..][..2].try_into().expect("two bytes"));
        let scale = |i: usize| f64::from(f32::from_bits(word(self.scales[i])));
        let at = self.at[i];
        match self.elem {
            Elem::F32 => f32::from_bits(word(at)).into(),
            Elem::Bf16 => f32::from_bits(u32::from(half(at)) << 16).into(),
            Elem::F16 => half::f16::from_bits(half(at)).into(),
            Elem::I32 => (word(at) as i32).into(),
            Elem::ScaledI8 => scale(i) * f64::from(buffer[at as usize] as i8),
            Elem::ScaledE4m3 => {
                // Sign apart the bits are those of a binary16 so much smaller.
                let code = u16::from(buffer[at as usize]);
                scale(i) * f64::from(half::f16::from_bits((code & 0x80) << 8 | (code & 0x7f) << 7))
            }
        }
    }
}

impl Try {
    /// The arguments of a step, given where buffers are.
    pub fn arguments(&self, address: impl Fn(&str) -> Option<u64>) -> Vec<u8> {
        let mut args = vec![0; size_of::<StepArgs>()];
        for (name, offset) in STEP_FIELDS {
            let count = self.counts.iter().find(|(n, _)| n == name).map(|(_, count)| *count);
            let value = count.or_else(|| address(name)).unwrap_or(0);
            args[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        args
    }
}

/// Writes the kernels of a bundle.
///
/// # Errors
/// If the file cannot be written.
pub fn write(folder: &Path, kernels: &[KernelCheck]) -> std::io::Result<()> {
    let bytes = postcard::to_stdvec(kernels).map_err(std::io::Error::other)?;
    std::fs::write(folder.join(KERNELS), bytes)
}

/// Reads them; a bundle may have none.
///
/// # Errors
/// Exit code 3 if the file is damaged.
pub fn read(folder: &Path) -> Result<Vec<KernelCheck>> {
    if !folder.join(KERNELS).exists() {
        return Ok(vec![]);
    }
    let bytes = bundle::read(folder, KERNELS)?;
    let broken = |e| Error::input(format!("{}: {e}; make the bundle again", folder.join(KERNELS).display()));
    postcard::from_bytes(&bytes).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(elem: Elem, want: f64, bound: f64) -> Expected {
        Expected { buffer: "arena".into(), elem, at: vec![4], scales: vec![0], want: vec![want], bound: vec![bound] }
    }

    fn worst(expected: &Expected, buffer: &[u8]) -> (bool, f64) {
        let mut found = Found::new("a kernel");
        found.compare(1, expected, buffer);
        (found.holds(), found.worst)
    }

    #[test]
    fn numbers_are_read_as_what_they_are() {
        let mut bytes = 0.5f32.to_le_bytes().to_vec();
        bytes.extend(0xffff_ff85_u32.to_le_bytes());
        assert_eq!(expected(Elem::ScaledI8, 0.0, 0.0).number(0, &bytes), -61.5);
        assert_eq!(expected(Elem::I32, 0.0, 0.0).number(0, &bytes), -123.0);
        // 0x85 is minus five units of 2^-9.
        assert_eq!(expected(Elem::ScaledE4m3, 0.0, 0.0).number(0, &bytes), -5.0 / 512.0 / 256.0 * 0.5);
        bytes[4..].copy_from_slice(&[0x00, 0x3c, 0, 0]);
        assert_eq!(expected(Elem::F16, 0.0, 0.0).number(0, &bytes), 1.0);
        assert_eq!(expected(Elem::Bf16, 0.0, 0.0).number(0, &bytes), 0.0078125);
        bytes[4..].copy_from_slice(&2.5f32.to_le_bytes());
        assert_eq!(expected(Elem::F32, 0.0, 0.0).number(0, &bytes), 2.5);
    }

    #[test]
    fn what_is_far_off_or_no_number_is_wrong() {
        let bytes = [0u32, 2.5f32.to_bits()].map(u32::to_le_bytes).concat();
        assert_eq!(worst(&expected(Elem::F32, 2.0, 1.0), &bytes), (true, 0.5));
        assert_eq!(worst(&expected(Elem::F32, 2.0, 0.25), &bytes), (false, 2.0));
        assert!(worst(&expected(Elem::F32, 2.5, 0.0), &bytes).0);
        let poison = [0xff; 8];
        let (holds, off) = worst(&expected(Elem::F32, 2.0, 1.0), &poison);
        assert!(!holds && off.is_nan());
        assert!(!Found::new("nothing compared").holds());
    }
}
