//! `rwkvc verify`: every backend, fused and unfused, against the f64 evaluator, layer by layer.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc::engine;
use rwkvc_backend_api::{Backend, Target};
use rwkvc_frontend::build::{Logits, build};
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::manifest::ProgramKind;
use serde::Serialize;

use super::tables::table;
use crate::cli::{Format, Verify};
use crate::{options, output, progress};

/// How far a value may be from the f64 evaluator, relative to the largest absolute value of its tensor. The official
/// package in f32 is within 5e-7 on the demo model's logits.
const TOLERANCE: f64 = 2e-6;

/// The same for the parts of the state, which sum over all tokens.
const STATE_TOLERANCE: f64 = 2e-6;

#[derive(Serialize)]
struct Row {
    /// `blocks.3` (the residual stream after a block), `logits`, or a part of the state.
    value: String,
    backend: &'static str,
    variant: &'static str,
    program: ProgramKind,
    /// Largest absolute difference.
    difference: f64,
    /// Largest absolute value of the reference.
    largest: f64,
    /// What the difference may be.
    tolerance: f64,
    ok: bool,
}

/// Reference values by name, each `[tokens, …]` or a part of the final state.
type Values = Vec<(String, Vec<f64>)>;

/// Runs the command.
pub(crate) fn run(args: &Verify) -> Result<ExitCode> {
    if args.length == 0 {
        bail!("--length is 0: there is nothing to compare");
    }
    let model = options::checkpoint(&args.model)?;
    let backends = match &args.backends {
        None => backends::all(),
        Some(names) => names
            .iter()
            .map(|n| backends::find(Some(n)))
            .collect::<Result<_>>()?,
    };
    let tokens = tokens(args.length, model.config().vocab);
    let bar = progress::bar(1 + 4 * backends.len() as u64, "comparisons");
    let expected = reference(&model, &tokens)?;
    bar.inc(1);
    let mut rows = vec![];
    for backend in backends {
        for (variant, passes) in [("fused", Selection::all()), ("unfused", Selection::unfused())] {
            for program in [ProgramKind::Decode, ProgramKind::Score] {
                let found = compiled(&model, backend, passes.clone(), program, &tokens, args)?;
                rows.extend(compare(&expected, &found, backend.name(), variant, program)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let ok = rows.iter().all(|r| r.ok);
    if args.out.format == Format::Json {
        output::json(&serde_json::json!({ "ok": ok, "tokens": tokens, "rows": rows }))?;
    } else {
        output::print(&text(&rows))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tokens that differ from each other, the same at every run.
fn tokens(n: usize, vocab: usize) -> Vec<u32> {
    let spread = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    (0..n).map(|i| (spread(i) % vocab as u64) as u32).collect()
}

/// What the f64 evaluator gives: residual stream after each block, logits, final state.
fn reference(model: &Arc<Model>, tokens: &[u32]) -> Result<Values> {
    let graph = build(model, Logits::All, true)?.specialise(Some(1), Some(tokens.len()));
    let mut bindings =
        Bindings::new(&**model).with("tokens", Tensor::<f64>::tokens([1, tokens.len()], tokens));
    for (name, value) in engine::fresh_state(model, &graph)? {
        bindings = bindings.with(name, value);
    }
    Ok(eval(&graph, &bindings)?
        .into_iter()
        .map(|(name, t)| (name, t.into_values()))
        .collect())
}

/// The same from compiled code.
fn compiled(
    model: &Arc<Model>,
    backend: &'static dyn Backend,
    passes: Selection,
    program: ProgramKind,
    tokens: &[u32],
    args: &Verify,
) -> Result<Values> {
    let mut options = Options {
        backend,
        target: Target::host(),
        passes,
        fuel: None,
        programs: vec![program],
        probes: true,
        after_pass: &mut |_, _| {},
    };
    let code = engine::load(model, &mut options)?;
    let mut workspace = code.workspace(&options::workspace(args.threads))?;
    let mut state = code.new_state()?;
    let mut values: Values = vec![];
    let mut logits = vec![];
    // Probes hold the last call's values, so every call is one chunk.
    let chunk = code.manifest().program(program).map_or(1, |p| p.max_tokens);
    for chunk in tokens.chunks(chunk) {
        if program == ProgramKind::Decode {
            logits.extend(
                code.step(&mut workspace, &mut state, chunk[0])?
                    .iter()
                    .map(|&x| f64::from(x)),
            );
        } else {
            code.score(&mut workspace, &mut state, chunk, &mut |_, row| {
                logits.extend(row.iter().map(|&x| f64::from(x)));
            })?;
        }
        for (name, probe) in workspace.probes() {
            let new = probe.iter().map(|&x| f64::from(x));
            match values.iter_mut().find(|(n, _)| n == name) {
                Some((_, all)) => all.extend(new),
                None => values.push((name.to_string(), new.collect())),
            }
        }
    }
    values.push(("logits".into(), logits));
    for slot in state.slots() {
        let slot_values = state.slot(&slot.name).unwrap_or_default();
        values.push((
            slot.name.clone(),
            slot_values.iter().map(|&x| f64::from(x)).collect(),
        ));
    }
    Ok(values)
}

fn compare(
    expected: &Values,
    found: &Values,
    backend: &'static str,
    variant: &'static str,
    program: ProgramKind,
) -> Result<Vec<Row>> {
    let mut rows = vec![];
    for (name, reference) in expected {
        let Some((_, values)) = found.iter().find(|(n, _)| n == name) else {
            bail!("backend `{backend}` gave no `{name}`: a bug of rwkvc");
        };
        if values.len() != reference.len() {
            bail!(
                "backend `{backend}` gave {} values of `{name}`, expected {}",
                values.len(),
                reference.len()
            );
        }
        let largest = reference.iter().fold(0f64, |m, x| m.max(x.abs()));
        // A NaN is as far away as anything can be.
        let distance = |(a, b): (&f64, &f64)| {
            if (a - b).is_nan() {
                f64::INFINITY
            } else {
                (a - b).abs()
            }
        };
        let difference = reference.iter().zip(values).map(distance).fold(0f64, f64::max);
        let is_state = name.ends_with("x_prev") || name.ends_with("wkv");
        let tolerance = largest * if is_state { STATE_TOLERANCE } else { TOLERANCE };
        let value = name.clone();
        rows.push(Row {
            value,
            backend,
            variant,
            program,
            difference,
            largest,
            tolerance,
            ok: difference <= tolerance,
        });
    }
    Ok(rows)
}

fn text(rows: &[Row]) -> String {
    let cells = |r: &Row| {
        vec![
            r.value.clone(),
            r.backend.into(),
            r.variant.into(),
            r.program.to_string(),
            format!("{:.1e}", r.difference),
            format!("{:.1e}", r.tolerance),
            format!("{:.3}", r.largest),
            if r.ok { "ok".into() } else { "BEYOND".into() },
        ]
    };
    let head = [
        "value",
        "backend",
        "variant",
        "program",
        "difference",
        "tolerance",
        "largest",
        "",
    ];
    let beyond = rows.iter().filter(|r| !r.ok).count();
    let end = match beyond {
        0 => format!("all {} comparisons are within their tolerance\n", rows.len()),
        n => format!("{n} of {} comparisons are beyond their tolerance\n", rows.len()),
    };
    table(&head, &rows.iter().map(cells).collect::<Vec<_>>()) + "\n" + &end
}
