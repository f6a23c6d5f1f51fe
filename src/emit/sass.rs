//! The machine code of NVIDIA GPUs as text, by NVIDIA's own tools: `ptxas` assembles, `nvdisasm` or `cuobjdump` prints.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rwkvc::compile::plan_model;
use rwkvc_backend_api::DeviceKind;

use super::{Form, Write};

/// The machine code of a GPU.
pub(super) const SASS: Form = Form {
    name: "sass",
    summary: "The machine code of an NVIDIA GPU as text, by the `ptxas` and `nvdisasm` of CUDA's toolkit",
    devices: &[DeviceKind::Gpu],
    is_text: true,
    write: Write::Bytes(|model, options| {
        let plan = plan_model(model, options)?;
        let ptx = options.backend.emit(&plan.kernels, &options.target, "ptx")?;
        sass(&ptx, &options.target.cpu)
    }),
};

/// The machine code of PTX text for a generation, such as `sm_90`.
fn sass(ptx: &[u8], generation: &str) -> Result<Vec<u8>> {
    let assembler = tool(&["ptxas"])?;
    let printer = tool(&["nvdisasm", "cuobjdump"])?;
    let folder = Folder::new()?;
    let (source, object) = (folder.0.join("kernels.ptx"), folder.0.join("kernels.cubin"));
    std::fs::write(&source, ptx).with_context(|| format!("writing `{}`", source.display()))?;
    run(Command::new(&assembler)
        .arg(format!("-arch={generation}"))
        .arg("-o")
        .args([&object, &source]))?;
    let mut print = Command::new(&printer);
    if printer.file_stem().is_some_and(|name| name == "cuobjdump") {
        print.arg("-sass");
    }
    run(print.arg(&object))
}

/// What a tool prints.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.output().with_context(|| format!("running `{name}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{name}` failed ({}): {}", output.status, said.trim_end());
    }
    Ok(output.stdout)
}

/// The first of these tools that is found.
fn tool(names: &[&str]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let toolkits = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(std::env::var_os);
    let toolkits = toolkits
        .map(PathBuf::from)
        .chain([PathBuf::from("/usr/local/cuda")]);
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(toolkits.map(|toolkit| toolkit.join("bin")))
        .collect();
    let places = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    match places.into_iter().find(|place| place.is_file()) {
        Some(place) => Ok(place),
        None => bail!(
            "{} was not found in PATH, CUDA_HOME/bin, CUDA_PATH/bin or /usr/local/cuda/bin; it comes with CUDA's toolkit, and \
             scripts/setup puts it into target/tools/nvidia/bin",
            names.join(" or ")
        ),
    }
}

/// A folder of this process alone, removed when this value goes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("rwkvc-sass-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making the folder `{}`", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // There is nothing to be done if it stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
