//! `rwkvc targets`: what there is to compile for.

use anyhow::Result;
use clap::Args;
use rwkvc::backends;
use rwkvc_backend_api::{Backend, Features, Target};
use serde_json::json;

use crate::args::{Format, Output};
use crate::output;

/// `rwkvc targets`
#[derive(Debug, Args)]
pub(crate) struct Targets {
    #[command(flatten)]
    out: Output,
}

/// Runs `rwkvc targets`.
pub(crate) fn run(args: &Targets) -> Result<()> {
    let host = Target::host();
    let backends = backends::all();
    if args.out.format == Format::Json {
        let entry = |b: &&dyn Backend| {
            let (f32_lanes, vector_registers) = vectors(*b, &host);
            json!({ "name": b.name(), "f32_lanes": f32_lanes, "vector_registers": vector_registers })
        };
        let levels: Vec<_> = Target::levels()
            .iter()
            .map(|(name, t)| json!({ "name": name, "extensions": t.extensions }))
            .collect();
        return output::json(&json!({
            "host": { "target": host.to_string(), "cpu": host.cpu, "extensions": host.extensions },
            "backends": backends.iter().map(entry).collect::<Vec<_>>(),
            "levels": levels,
        }));
    }
    let mut text = format!(
        "this machine: {host}\n  {}\n\nbackends (the first is the default)\n",
        host.extensions.join(" ")
    );
    for entry in backends::TABLE {
        let here = match entry.backend.map(|b| b.supports(&host)) {
            Some(Ok(Features::Cpu(f))) => {
                format!(
                    "{} f32 lanes, {} vector registers here",
                    f.f32_lanes, f.vector_registers
                )
            }
            Some(Ok(Features::Gpu(_))) => "no code for this machine's CPU".to_owned(),
            Some(Err(unsupported)) => unsupported.reason,
            None => format!("not in this build: {}", entry.how_to_get),
        };
        text += &format!("  {:<10} {}; {here}\n", entry.name, entry.summary);
    }
    text += &format!(
        "  {:<10} the f64 reference, generates no code\n\ntargets\n",
        backends::EVALUATOR
    );
    for (name, target) in Target::levels() {
        text += &format!("  {name:<16} {}\n", target.extensions.join(" "));
    }
    output::print(&text)
}

/// Lanes and number of vector registers of a machine; none if the backend has no code for it.
fn vectors(backend: &dyn Backend, target: &Target) -> (u32, u32) {
    match backend.supports(target) {
        Ok(Features::Cpu(f)) => (f.f32_lanes, f.vector_registers),
        Ok(Features::Gpu(_)) | Err(_) => (0, 0),
    }
}
