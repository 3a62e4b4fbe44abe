//! `llmc compile`.

use super::{print, set_jobs, write_file};
use crate::cli::CompileArgs;
use crate::compile;
use crate::emit::{self, Emit};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::progress::Progress;
use std::path::{Path, PathBuf};

/// Runs the command.
pub(super) fn run(args: &CompileArgs) -> Result<()> {
    set_jobs(args.model.jobs)?;
    let progress = Progress::new(args.model.quiet);
    let options = Options { ptxas: args.ptxas.clone(), linker: args.linker.clone(), ..args.model.options() };
    match args.emit {
        Emit::Exe => executable(args, &options, &progress),
        Emit::Object => objects(args, &options, &progress),
        emit => {
            let text = emit::text(emit, &options, &progress)?;
            match &args.output {
                None => print(&text),
                Some(path) => write_file(path, text.as_bytes()),
            }
        }
    }
}

fn executable(args: &CompileArgs, options: &Options, progress: &Progress) -> Result<()> {
    let out = args.output.clone().unwrap_or_else(|| default_output(&options.model));
    let artifact = compile::compile(options, &out, progress)?;
    if args.model.verbose {
        artifact.passes.blocks().for_each(|b| eprint!("{b}"));
    }
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let report = &artifact.report;
    progress.stage(&format!(
        "wrote {} ({:.1} MB, {:.1} MB without its weights)",
        out.display(),
        mb(report.bytes),
        mb(report.bytes_without_weights)
    ));
    Ok(())
}

/// The model's name in this folder: of a file, its folder's name.
fn default_output(model: &Path) -> PathBuf {
    let folder =
        if model.is_file() { model.canonicalize().ok().and_then(|p| p.parent().map(Path::to_path_buf)) } else { None };
    let from = folder.unwrap_or_else(|| model.canonicalize().unwrap_or_else(|_| model.to_path_buf()));
    let name = from.file_name().filter(|n| !n.is_empty()).map_or_else(|| "model".into(), |n| n.to_os_string());
    // The model's own folder may be the current one's child of that name.
    let plain = PathBuf::from(&name);
    if plain.is_dir() { PathBuf::from(format!("{}.llmc", name.to_string_lossy())) } else { plain }
}

fn objects(args: &CompileArgs, options: &Options, progress: &Progress) -> Result<()> {
    let out = args.output.clone().ok_or_else(|| Error::Usage("--emit object needs -o FOLDER".into()))?;
    let front = compile::front(options, progress)?;
    let plan = compile::plan(&front, options)?;
    let (objects, device) = compile::objects(&plan, options, progress)?;
    if device.is_some() {
        return Err(Error::Usage("--emit object: code for GPUs is no object file; use --emit ptx".into()));
    }
    std::fs::create_dir_all(&out).map_err(|e| Error::io("making", &out, &e))?;
    for object in objects {
        let path = out.join(format!("{}.o", object.name.trim_end_matches(".o")));
        write_file(&path, &object.bytes)?;
    }
    Ok(())
}
