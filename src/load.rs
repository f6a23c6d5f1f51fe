//! From a file to a model that can run: checkpoints are opened, compiled in memory and loaded.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rwkvc_frontend::model::{Model, ModelError};
use rwkvc_runtime::Artifact;
use rwkvc_runtime::gpu::{Driver, GpuModel};

use crate::compile::{Options, compile};
use crate::weights::weights;

/// Opens a checkpoint of any format.
///
/// # Errors
/// If it cannot be read, or is compiled already.
pub fn open_checkpoint(path: &Path) -> Result<Arc<Model>> {
    if !path.is_dir() && is_artifact(path)? {
        bail!(
            "`{}` is compiled already; this needs the checkpoint that it was compiled from",
            path.display()
        );
    }
    Model::open(path).map(Arc::new).map_err(|error| match error {
        // The reader names the file itself.
        ModelError::Checkpoint(error) => error.into(),
        error => anyhow::Error::new(error).context(format!("`{}`", path.display())),
    })
}

/// Whether a file is an artifact.
///
/// # Errors
/// If the file cannot be read.
pub fn is_artifact(path: &Path) -> Result<bool> {
    use std::io::Read;
    if path.is_dir() {
        return Ok(false);
    }
    let file = std::fs::File::open(path).with_context(|| format!("opening `{}`", path.display()))?;
    let mut start = vec![];
    file.take(16)
        .read_to_end(&mut start)
        .with_context(|| format!("reading `{}`", path.display()))?;
    Ok(Artifact::is_artifact(&start))
}

/// Moves the weights of a model into huge pages, in a thread of its own: the first tokens need not wait for it.
pub fn use_huge_pages(model: &rwkvc_runtime::Model) {
    let model = model.clone();
    let moving = std::thread::Builder::new().name("huge pages".into());
    // Without a thread the weights stay where they are, which is slower and nothing else.
    let _ = moving.spawn(move || model.use_huge_pages());
}

/// Compiles a checkpoint in memory and loads the code.
///
/// # Errors
/// If the model does not compile, or this machine cannot run the code.
pub fn load(model: &Arc<Model>, options: &mut Options<'_>) -> Result<rwkvc_runtime::Model> {
    let compiled = compile(model, options)?;
    let weights = weights(model, &compiled.plan)?;
    Ok(rwkvc_runtime::Model::from_parts(
        compiled.manifest,
        compiled.module.bytes(),
        weights,
    )?)
}

/// Compiles a checkpoint in memory and loads the code on a GPU.
///
/// # Errors
/// If the model does not compile, or the device cannot run the code.
pub fn load_on_gpu(
    model: &Arc<Model>,
    options: &mut Options<'_>,
    driver: Arc<dyn Driver>,
) -> Result<GpuModel> {
    let compiled = compile(model, options)?;
    let weights = weights(model, &compiled.plan)?;
    Ok(GpuModel::from_parts(
        compiled.manifest,
        compiled.module.bytes(),
        weights,
        driver,
    )?)
}
