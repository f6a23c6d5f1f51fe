//! What a model computes from some tokens, by name: the residual stream after each block, logits, the state at the end.

use std::sync::Arc;

use anyhow::{Result, bail};
use rwkvc_abi::{Manifest, ProgramKind};
use rwkvc_frontend::build::{Logits, build};
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::eval::{Bindings, Tensor, eval};
use rwkvc_runtime::gpu::{GpuBatch, GpuModel, Mode};
use rwkvc_runtime::{Session, State};

use crate::reference;

/// Values by name, each `[tokens, …]` or a part of the state.
#[derive(Clone, Debug, Default)]
pub struct Values(pub Vec<(String, Vec<f64>)>);

impl Values {
    /// What the f64 evaluator gives.
    ///
    /// # Errors
    /// If the evaluator cannot compute a value.
    pub fn reference(model: &Arc<Model>, tokens: &[u32]) -> Result<Self> {
        let graph = build(model, Logits::All, true)?.specialise(Some(1), Some(tokens.len()));
        let mut bindings =
            Bindings::new(&**model).with("tokens", Tensor::<f64>::tokens([1, tokens.len()], tokens));
        for (name, value) in reference::fresh_state(model, &graph)? {
            bindings = bindings.with(name, value);
        }
        let values = eval(&graph, &bindings)?.into_iter();
        Ok(Values(values.map(|(name, t)| (name, t.into_values())).collect()))
    }

    /// What a program gives from a fresh state on, of code that was compiled with probes. Prefill has logits of the last token
    /// only.
    ///
    /// # Errors
    /// If the session fails, or the program is not one of a session.
    pub fn of_session(
        session: &mut Session,
        manifest: &Manifest,
        program: ProgramKind,
        tokens: &[u32],
    ) -> Result<Self> {
        let mut values = Values::default();
        // Probes hold the last call's values, so every call is one chunk.
        let chunk = manifest.program(program).map_or(1, |p| p.max_tokens);
        for chunk in tokens.chunks(chunk) {
            match program {
                ProgramKind::Decode => values.add("logits", session.step(chunk[0])?),
                ProgramKind::Score => session.score(chunk, &mut |_, row| values.add("logits", row))?,
                ProgramKind::Prefill => {
                    values.0.retain(|(name, _)| name != "logits");
                    values.add("logits", session.prefill(chunk)?);
                }
                ProgramKind::Batch | ProgramKind::Sample => {
                    bail!("a {program} program is not one of a session")
                }
            }
            for (name, probe) in session.probes()? {
                values.add(name, &probe);
            }
        }
        values.add_state(&session.state()?);
        Ok(values)
    }

    /// What a program of code for GPUs gives, which was compiled with probes.
    /// In a batch the tokens are those of the second of three members, which has no residual stream to be seen.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of_gpu(model: &GpuModel, mode: Mode, program: ProgramKind, tokens: &[u32]) -> Result<Self> {
        if program == ProgramKind::Batch {
            let mut values = Values::default();
            let mut batch = model.batch(mode)?;
            values.of_member(model, &mut batch, tokens)?;
            return Ok(values);
        }
        let mut session = Session::on(model.session(mode)?);
        Values::of_session(&mut session, model.manifest(), program, tokens)
    }

    fn of_member(&mut self, model: &GpuModel, batch: &mut GpuBatch, tokens: &[u32]) -> Result<()> {
        let (state, vocab) = (model.new_state()?, model.vocab());
        for _ in 0..3 {
            batch.join(&state)?;
        }
        for &token in tokens {
            // What the others read must not matter.
            let other = (token + 1) % vocab as u32;
            let logits = batch.step(&[other, token, other])?;
            self.add("logits", &logits[vocab..2 * vocab]);
        }
        self.add_state(&batch.leave(1)?);
        Ok(())
    }

    /// What a program should give, out of what the reference gives.
    pub fn expected_of(&self, program: ProgramKind, tokens: usize) -> Self {
        let mut expected = self.clone();
        match program {
            ProgramKind::Decode | ProgramKind::Score | ProgramKind::Sample => {}
            ProgramKind::Prefill => {
                for (_, logits) in expected.0.iter_mut().filter(|(name, _)| name == "logits") {
                    let vocab = logits.len() / tokens;
                    logits.drain(..logits.len() - vocab);
                }
            }
            ProgramKind::Batch => expected.0.retain(|(name, _)| name == "logits" || is_state(name)),
        }
        expected
    }

    fn add_state(&mut self, state: &State) {
        for slot in state.slots() {
            self.add(&slot.name, state.slot(&slot.name).unwrap_or_default());
        }
    }

    fn add(&mut self, name: &str, new: &[f32]) {
        let new = new.iter().map(|&x| f64::from(x));
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, all)) => all.extend(new),
            None => self.0.push((name.to_string(), new.collect())),
        }
    }
}

/// Whether a value is a part of the state.
pub fn is_state(name: &str) -> bool {
    name.ends_with("x_prev") || name.ends_with("wkv")
}

/// How far values are from what is expected of them.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    /// Largest absolute difference.
    pub difference: f64,
    /// Largest absolute value of what is expected.
    pub largest: f64,
}

/// For each of the values that are expected, how far those found are from them.
///
/// # Errors
/// If a value is missing, or has another number of elements.
pub fn compare(expected: &Values, found: &Values) -> Result<Vec<(String, Distance)>> {
    let mut distances = vec![];
    for (name, reference) in &expected.0 {
        let Some((_, values)) = found.0.iter().find(|(n, _)| n == name) else {
            bail!("the code gave no `{name}`: a bug of rwkvc");
        };
        if values.len() != reference.len() {
            bail!(
                "the code gave {} values of `{name}`, expected {}",
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
        distances.push((name.clone(), Distance { difference, largest }));
    }
    Ok(distances)
}
