//! What `rwkvc tune` found for a model.

use std::path::Path;

use anyhow::{Result, bail};
use rwkvc::compile::Options;
use rwkvc::tune::Choice;
use rwkvc::tune::record::{self, RecordError, Subject};
use rwkvc_backend_api::Arch;
use rwkvc_frontend::model::Model;
use rwkvc_passes::quantize::Formats;

use crate::args::Codegen;
use crate::output;

/// Gives the schedules of a checkpoint what was measured, if it was measured for this; all that was chosen.
pub(crate) fn tune(
    codegen: &Codegen,
    path: &Path,
    model: &Model,
    options: &mut Options<'_>,
) -> Result<Option<Choice>> {
    let tuned = match options.target.arch {
        Arch::Cuda => None,
        Arch::X86_64 | Arch::Aarch64 => tuned(codegen.tuning.as_deref(), path, || {
            let formats = options.passes.setting::<Formats>();
            Subject::checkpoint(model, options.backend, &options.target, &formats)
        })?,
    };
    options.tuning = tuned.and_then(|choice| choice.tuning);
    Ok(tuned)
}

/// What was found for a model, in the file that is given or else beside the model. A file that was asked for must fit; another
/// one may be for something else.
pub(crate) fn tuned(
    file: Option<&Path>,
    model: &Path,
    subject: impl FnOnce() -> Subject,
) -> Result<Option<Choice>> {
    let beside = record::path(model);
    let path = file.unwrap_or(&beside);
    if file.is_some_and(|file| file.as_os_str() == "none") || file.is_none() && !path.exists() {
        return Ok(None);
    }
    match record::read(path, &subject()) {
        Ok(choice) => {
            output::note(&format!("tuned by `{}`", path.display()));
            Ok(Some(choice))
        }
        Err(other @ RecordError::Other { .. }) if file.is_none() => {
            output::note(&format!("not tuned: {other}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses a tuning where there is nothing to be tuned.
pub(crate) fn refuse_tuning(codegen: &Codegen, reason: &str) -> Result<()> {
    match &codegen.tuning {
        Some(file) if file.as_os_str() != "none" => bail!("--tuning is for code for CPUs: {reason}"),
        _ => Ok(()),
    }
}
