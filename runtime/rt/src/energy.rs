//! Joules used by the processor, from RAPL's counters where the system lets them be read.

use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux shows the counters.
const POWERCAP: &str = "/sys/class/powercap";

/// Readings of every processor package at one time.
pub struct Reading(Vec<Counter>);

struct Counter {
    folder: PathBuf,
    microjoules: u64,
}

impl Reading {
    /// Reads the counters now.
    ///
    /// # Errors
    ///
    /// Says why there are none.
    pub fn now() -> Result<Self, String> {
        let entries = fs::read_dir(POWERCAP).map_err(|_| format!("no {POWERCAP} on this machine"))?;
        let mut folders: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| is_package(p)).collect();
        folders.sort();
        let read = |folder: PathBuf| -> Result<Counter, String> {
            let file = folder.join("energy_uj");
            let microjoules = number(&file).ok_or_else(|| format!("{} cannot be read (root only?)", file.display()))?;
            Ok(Counter { folder, microjoules })
        };
        let counters = folders.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if counters.is_empty() { Err(format!("no processor package in {POWERCAP}")) } else { Ok(Self(counters)) }
    }

    /// Joules used since this reading.
    pub fn joules_since(&self) -> Option<f64> {
        let used = |counter: &Counter| {
            let now = number(&counter.folder.join("energy_uj"))?;
            let range = number(&counter.folder.join("max_energy_range_uj")).unwrap_or(u64::MAX);
            Some(elapsed(counter.microjoules, now, range))
        };
        let total: u64 = self.0.iter().map(used).sum::<Option<u64>>()?;
        Some(total as f64 / 1e6)
    }
}

/// Counters start again from 0 after `range`.
fn elapsed(before: u64, now: u64, range: u64) -> u64 {
    if now >= before { now - before } else { range.saturating_sub(before).saturating_add(now) }
}

fn is_package(folder: &Path) -> bool {
    fs::read_to_string(folder.join("name")).is_ok_and(|name| name.starts_with("package"))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_wrap() {
        assert_eq!(elapsed(10, 25, 100), 15);
        assert_eq!(elapsed(90, 5, 100), 15);
    }

    #[test]
    fn absence_is_said() {
        match Reading::now() {
            Ok(reading) => assert!(reading.joules_since().is_some_and(|j| j >= 0.0)),
            Err(why) => assert!(why.contains(POWERCAP), "{why}"),
        }
    }
}
