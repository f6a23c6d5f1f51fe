//! Code, manifest and weights in one file.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rwkvc::compile::{Options, compile};
use rwkvc::weights::weights;
use rwkvc_frontend::model::Model;
use rwkvc_runtime::ArtifactWriter;

use super::{ALL, Form, Write};
use crate::progress;

/// The file that the runtime runs.
pub(super) const ARTIFACT: Form = Form {
    name: "artifact",
    summary: "Code, manifest and weights in one file, for `rwkvc run` and the runtime library",
    devices: ALL,
    is_text: false,
    write: Write::File(artifact),
};

/// Writes the artifact, weight after weight.
fn artifact(model: &Arc<Model>, options: &mut Options<'_>, path: &Path) -> Result<()> {
    let compiled = compile(model, options)?;
    let total: u64 = compiled.manifest.weights.iter().map(|w| w.bytes).sum();
    let mut writer = ArtifactWriter::create(path, compiled.manifest, compiled.module.bytes())
        .with_context(|| format!("writing `{}`", path.display()))?;
    let bar = progress::bar(total, "bytes of weights");
    for weight in &weights(model, &compiled.plan)? {
        let bytes = weight.bytes().context("a weight is gone")?;
        writer.weight(bytes)?;
        bar.inc(bytes.len() as u64);
    }
    bar.finish_and_clear();
    Ok(writer.finish()?)
}
