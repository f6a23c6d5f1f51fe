//! `rwkvc targets` and `rwkvc passes`: what there is.

use anyhow::Result;
use rwkvc::backends;
use rwkvc_backend_api::{Features, Target};
use rwkvc_passes::pipeline::STANDARD;
use serde_json::json;

use crate::cli::{Format, Passes, Targets};
use crate::output;

/// Runs `rwkvc targets`.
pub(crate) fn targets(args: &Targets) -> Result<()> {
    let host = Target::host();
    let backends = backends::all();
    if args.out.format == Format::Json {
        let entry = |b: &&dyn rwkvc_backend_api::Backend| {
            let (f32_lanes, vector_registers) = vectors(b.features(&host));
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
    for b in &backends {
        let (f32_lanes, vector_registers) = vectors(b.features(&host));
        text += &format!(
            "  {:<10} {f32_lanes} f32 lanes, {vector_registers} vector registers here\n",
            b.name(),
        );
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

/// Lanes and number of vector registers; a machine that runs this program has some.
fn vectors(features: Features) -> (u32, u32) {
    match features {
        Features::Cpu(f) => (f.f32_lanes, f.vector_registers),
        Features::Gpu(_) => (0, 0),
    }
}

/// Runs `rwkvc passes`.
pub(crate) fn passes(args: &Passes) -> Result<()> {
    if args.out.format == Format::Json {
        let entry = |p: &rwkvc_passes::pipeline::Pass| json!({ "name": p.name, "fuses": p.fuses, "summary": p.summary });
        return output::json(&STANDARD.iter().map(entry).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for p in STANDARD {
        text += &format!("{:<18} {}\n", p.name, p.summary);
    }
    output::print(&text)
}
