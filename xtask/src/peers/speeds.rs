//! What was measured of a program, and its line of the table.

use serde_json::{Value, json};

/// Speeds in each turn, and shares of what the machine could do meanwhile.
#[derive(Default)]
pub(super) struct Speeds {
    name: String,
    pub prefill: Vec<f64>,
    pub decode: Vec<f64>,
    /// Decoding with many tokens in the cache.
    pub deep: Vec<f64>,
    /// Seconds from the start of a process to the end of one that makes a token.
    pub start: Vec<f64>,
    /// GB/s that could be read while it decoded.
    pub readable: Vec<f64>,
    pub bandwidth_percent: Vec<f64>,
    pub peak_percent: Vec<f64>,
}

impl Speeds {
    pub(super) fn new(name: String) -> Speeds {
        Speeds { name, ..Speeds::default() }
    }

    /// The first lines of the table.
    pub(super) fn header(depth: usize) -> String {
        let names = "prefill, tokens/s | of peak | decode, tokens/s | of bandwidth";
        format!("| | {names} | decode at depth {depth} | start to first token, s |\n|---|---|---|---|---|---|---|")
    }

    /// A line of the table, with medians and their ratios to those of `peer`.
    pub(super) fn row(&self, peer: &Speeds) -> String {
        let with_ratio = |own: &[f64], ratio: f64, digits: usize| match own {
            [] => String::new(),
            own => format!("{:.digits$} ({ratio:.2})", median(own)),
        };
        let speed = |own: &[f64], other: &[f64]| with_ratio(own, median(own) / median(other), 1);
        let share = |list: &[f64]| if list.is_empty() { String::new() } else { format!("{:.0} %", median(list)) };
        let of_bandwidth = match &self.readable[..] {
            [] => String::new(),
            readable => format!("{} of {:.0} GB/s", share(&self.bandwidth_percent), median(readable)),
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            speed(&self.prefill, &peer.prefill),
            share(&self.peak_percent),
            speed(&self.decode, &peer.decode),
            of_bandwidth,
            speed(&self.deep, &peer.deep),
            with_ratio(&self.start, median(&peer.start) / median(&self.start), 2),
        )
    }

    /// All of it.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name, "prefill_tok_s": self.prefill, "decode_tok_s": self.decode,
            "decode_at_depth_tok_s": self.deep, "start_to_first_token_s": self.start,
            "readable_gb_s": self.readable, "bandwidth_percent": self.bandwidth_percent,
            "prefill_peak_percent": self.peak_percent,
        })
    }
}

fn median(list: &[f64]) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
