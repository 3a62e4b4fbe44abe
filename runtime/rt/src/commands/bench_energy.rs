//! Joules of what runs the model: the processor's counters, or those of the GPU.

use crate::cuda::energy::Meter;
use crate::energy::Reading;
use crate::engine::Engine;

/// The counters.
pub enum Joules {
    /// The processor's packages.
    Processor,
    /// One GPU.
    Gpu(Meter),
    /// A GPU that does not tell.
    Unknown,
}

/// Counters at one time.
pub enum Start {
    /// The processor's.
    Processor(Reading),
    /// Joules that the GPU had used.
    Gpu(f64),
}

impl Joules {
    /// The counters of what runs `engine`.
    pub fn of(engine: &Engine) -> Self {
        match engine.gpu() {
            None => Joules::Processor,
            Some(step) => Meter::of(step.gpu().info()).map_or(Joules::Unknown, Joules::Gpu),
        }
    }

    /// Reads the counters now.
    ///
    /// # Errors
    ///
    /// Says why there are none.
    pub fn start(&self) -> Result<Start, String> {
        let silent = || "NVML does not tell the GPU's energy".to_string();
        match self {
            Joules::Processor => Reading::now().map(Start::Processor),
            Joules::Gpu(meter) => meter.joules().map(Start::Gpu).ok_or_else(silent),
            Joules::Unknown => Err(silent()),
        }
    }

    /// Joules used since then.
    pub fn since(&self, start: &Start) -> Option<f64> {
        match (self, start) {
            (Joules::Processor, Start::Processor(reading)) => reading.joules_since(),
            (Joules::Gpu(meter), Start::Gpu(before)) => Some(meter.joules()? - before),
            _ => None,
        }
    }
}
