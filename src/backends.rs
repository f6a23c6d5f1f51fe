//! The code generators that are built in.

use anyhow::{Result, bail};
use rwkvc_backend_api::{Backend, Target};

/// The name of the reference evaluator, which generates no code.
pub const EVALUATOR: &str = "evaluator";

/// Every backend that is built in, the default first.
pub fn all() -> Vec<&'static dyn Backend> {
    vec![
        #[cfg(feature = "llvm")]
        &rwkvc_backend_llvm::LlvmBackend,
        &rwkvc_backend_cranelift::CraneliftBackend,
    ]
}

/// The backend of this name; the default without one.
pub fn find(name: Option<&str>) -> Result<&'static dyn Backend> {
    let all = all();
    let Some(name) = name else { return Ok(all[0]) };
    if let Some(backend) = all.iter().find(|b| b.name() == name) {
        return Ok(*backend);
    }
    let known = all.iter().map(|b| b.name()).collect::<Vec<_>>().join(", ");
    match name {
        "llvm" => bail!(
            "backend `llvm` is not compiled into this rwkvc; build it with `--features llvm` where LLVM 22 is installed"
        ),
        EVALUATOR => bail!("the evaluator generates no code; the code generators are {known}"),
        _ => bail!("there is no backend `{name}`; there are {known} and {EVALUATOR}"),
    }
}

/// The target of a `--target` text.
pub fn target(text: &str) -> Result<Target> {
    Ok(Target::parse(text)?)
}
