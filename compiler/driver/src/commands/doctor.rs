//! `llmc doctor`.

use super::print;
use crate::cli::DoctorArgs;
use crate::error::{Error, Result};
use llmc_abi::features::{Feature, detect};
use llmc_kernels::Target;
use std::fmt::Write;

/// Runs the command.
pub(super) fn run(args: &DoctorArgs) -> Result<()> {
    let features = detect();
    let best = Target::best(features);
    let link = llmc_link::self_check().map_err(Error::Failed)?;
    let backends: &[&str] = if cfg!(feature = "llvm") { &["llvm", "cranelift"] } else { &["cranelift"] };
    let runs: Vec<&str> = Target::names()
        .filter(|n| Target::from_name(n).is_some_and(|t| n.starts_with("x86-64") && t.features & !features == 0))
        .collect();
    if args.json {
        let json = serde_json::json!({
            "llmc": env!("CARGO_PKG_VERSION"),
            "backends": backends,
            "targets": Target::names().collect::<Vec<_>>(),
            "runs_here": runs,
            "cpu_target": best.as_ref().map(|t| t.name.as_str()),
            "cpu_features": Feature::names(features),
            "threads": std::thread::available_parallelism().map_or(1, usize::from),
            "runtime": { "target": link.target, "bytes": link.archive_bytes, "glibc": link.glibc_floor },
        });
        return print(&format!("{json:#}\n"));
    }
    let mut out = String::new();
    let _ = writeln!(out, "llmc {}", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(out, "back ends      {}", backends.join(", "));
    let _ = writeln!(out, "targets        {}", Target::names().collect::<Vec<_>>().join(", "));
    let _ = writeln!(out, "runs here      {}", runs.join(", "));
    let _ =
        writeln!(out, "--target cpu   {}", best.map_or("none: this CPU is older than x86-64-v2".into(), |t| t.name));
    let _ = writeln!(out, "CPU features   {}", Feature::names(features).join(" "));
    let _ = writeln!(out, "artifacts      {}, glibc from {}", link.target, link.glibc_floor.replace('_', " "));
    print(&out)
}
