//! How fast this machine multiplies, measured with the workers that run the model: the ceiling that prefill is
//! compared with.

use std::time::{Duration, Instant};

use llmc_abi::manifest::{PhaseInfo, Unit};
use serde_json::{Value, json};

use crate::sys::multiply::Loop;
use crate::workers::Workers;

/// Time spent on each unit.
const TIME: Duration = Duration::from_millis(60);

/// The most that a unit does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// The unit.
    pub unit: Unit,
    /// The instruction.
    pub name: &'static str,
    /// Multiplications and additions per nanosecond, by all workers.
    pub gflop_s: f64,
}

/// Peaks of the units that a variant's products use.
#[derive(Clone, Debug, Default)]
pub struct Peaks(Vec<Peak>);

impl Peaks {
    /// Measures the units of the phases, in code that may use `features`.
    pub fn measure(workers: &mut Workers, features: u64, phases: &[PhaseInfo]) -> Peaks {
        let mut peaks: Vec<Peak> = Vec::new();
        for unit in phases.iter().filter_map(|p| p.unit) {
            if peaks.iter().all(|p| p.unit != unit) {
                peaks.extend(Loop::new(unit, features).map(|l| fastest(workers, unit, l)));
            }
        }
        Peaks(peaks)
    }

    /// The better of two measurements, unit by unit.
    pub fn or(self, other: &Peaks) -> Peaks {
        let better = |a: Peak| match other.of(a.unit) {
            Some(b) if b.gflop_s > a.gflop_s => *b,
            _ => a,
        };
        Peaks(self.0.into_iter().map(better).collect())
    }

    /// That of a unit, where it is known.
    pub fn of(&self, unit: Unit) -> Option<&Peak> {
        self.0.iter().find(|p| p.unit == unit)
    }

    /// All of them for a program to read.
    pub fn json(&self) -> Value {
        let peak = |p: &Peak| json!({ "unit": p.unit, "instruction": p.name, "gflop_s": p.gflop_s });
        self.0.iter().map(peak).collect()
    }

    /// All of them in words; none where there are none.
    pub fn text(&self) -> Option<String> {
        let peaks: Vec<String> = self.0.iter().map(|p| format!("{:.0} GFLOP/s of {}", p.gflop_s, p.name)).collect();
        (!peaks.is_empty()).then(|| peaks.join(" and "))
    }

    /// The least nanoseconds in which all products of a step of `tokens` tokens and one row of logits can be
    /// made. None where a unit's peak is not known.
    pub fn least(&self, phases: &[PhaseInfo], tokens: usize) -> Option<f64> {
        let time = |phase: &PhaseInfo| {
            let flops = phase.flops_per_token as f64 * tokens as f64 + phase.flops_per_row as f64;
            phase.unit.map_or(Some(0.0), |unit| Some(flops / self.of(unit)?.gflop_s))
        };
        phases.iter().map(time).sum::<Option<f64>>().filter(|least| *least > 0.0)
    }
}

fn fastest(workers: &mut Workers, unit: Unit, multiply: Loop) -> Peak {
    let mut peak = Peak { unit, name: multiply.name, gflop_s: 0.0 };
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let start = Instant::now();
        workers.run(&|_| multiply.run());
        let operations = multiply.operations as f64 * workers.count() as f64;
        peak.gflop_s = peak.gflop_s.max(operations / start.elapsed().as_nanos().max(1) as f64);
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_this_machine_is_measured() {
        let mut workers = Workers::start(Some(1)).expect("starts");
        for unit in [Unit::Int8, Unit::SmallInt8, Unit::Bf16, Unit::F32] {
            let multiply = Loop::new(unit, u64::MAX).expect("every x86-64 has it");
            let peak = fastest(&mut workers, unit, multiply);
            assert!(peak.gflop_s > 0.5, "{peak:?}");
        }
    }

    #[test]
    fn times_add_up_over_units() {
        let peak = |unit, gflop_s| Peak { unit, name: "", gflop_s };
        let peaks = Peaks(vec![peak(Unit::Int8, 100.0), peak(Unit::F32, 10.0)]);
        let phase = |unit, flops_per_token, flops_per_row| PhaseInfo {
            unit,
            flops_per_token,
            flops_per_row,
            ..PhaseInfo::default()
        };
        let phases = [phase(Some(Unit::Int8), 1000, 0), phase(None, 9, 9), phase(Some(Unit::F32), 0, 500)];
        assert_eq!(peaks.least(&phases, 10), Some(150.0));
        assert_eq!(peaks.least(&[phase(Some(Unit::Bf16), 1, 1)], 10), None);
        assert_eq!(peaks.least(&[phase(None, 1, 1)], 10), None);
    }
}
