//! What was found, as a file beside the model: `MODEL.tuning.json`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rwkvc_abi::Manifest;
use rwkvc_backend_api::tuning::FIELDS;
use rwkvc_backend_api::{Backend, Target, Tuning};
use rwkvc_frontend::model::Model;
use rwkvc_passes::quantize::Formats;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Choice;
use super::machine::Machine;
use super::search::Outcome;
use crate::manifest::PRODUCER;

/// The version of the format.
const FORMAT: u32 = 1;

/// The most bytes of a file; what is written is a few thousand.
const MOST_BYTES: u64 = 1 << 20;

/// The most threads of a step.
const MOST_THREADS: usize = 1024;

/// What a tuning was measured for. It is used only where all of this is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The machine.
    pub machine: Machine,
    /// The fingerprint of the model.
    pub model: String,
    /// The code generator.
    pub backend: String,
    /// The target, as text.
    pub target: String,
    /// The formats of the weights.
    pub weights: String,
    /// Whether schedules were chosen when the model was compiled into a file, so that only threads are left.
    pub compiled: bool,
}

impl Subject {
    /// A checkpoint on this machine, compiled so.
    pub fn checkpoint(model: &Model, backend: &dyn Backend, target: &Target, weights: &Formats) -> Self {
        Subject {
            machine: Machine::here(),
            model: model.fingerprint(),
            backend: backend.name().into(),
            target: target.to_string(),
            weights: weights.to_string(),
            compiled: false,
        }
    }

    /// A compiled file on this machine.
    pub fn compiled(manifest: &Manifest) -> Self {
        let target = &manifest.target;
        Subject {
            machine: Machine::here(),
            model: manifest.model.fingerprint.clone(),
            backend: manifest.backend.clone(),
            target: format!("{} {}", target.arch, target.extensions.join(" ")),
            weights: manifest.model.dtype.clone(),
            compiled: true,
        }
    }
}

/// A speed, measured before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// Tokens of a call: 1 is decode.
    pub tokens: usize,
    /// Tokens a second with the defaults.
    pub before: f64,
    /// Tokens a second as chosen.
    pub after: f64,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    producer: String,
    subject: Subject,
    threads: usize,
    /// Every field and its value; nothing of what is compiled already.
    schedule: Option<BTreeMap<String, Value>>,
    measured: Vec<Speed>,
}

/// What every version of the file says.
#[derive(Deserialize)]
struct Head {
    format: u32,
    producer: String,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read.
    #[error("reading the tuning `{path}`: {source}")]
    Read {
        /// The file.
        path: String,
        /// What is the matter.
        source: io::Error,
    },
    /// It is no tuning.
    #[error(
        "the tuning `{path}` is damaged: {reason}; make it again with `rwkvc tune`, or leave it out with --tuning none"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is the matter.
        reason: String,
    },
    /// It is for something else.
    #[error("the tuning `{path}` was measured {reason}; `rwkvc tune` makes one for this")]
    Other {
        /// The file.
        path: String,
        /// What is different.
        reason: String,
    },
}

/// Where the tuning of a model is looked for.
pub fn path(model: &Path) -> PathBuf {
    let mut name = OsString::from(model.as_os_str());
    // A folder may be given with a slash at its end.
    if let Some(last) = model.file_name() {
        name = model.with_file_name(last).into_os_string();
    }
    name.push(".tuning.json");
    name.into()
}

/// The text of the file for what was found.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn text(subject: Subject, found: &Outcome) -> serde_json::Result<String> {
    let number = |value: String| value.parse::<i64>().map_or(Value::String(value), Value::from);
    let speed = |change: &super::search::Change| Speed {
        tokens: change.tokens,
        before: change.before,
        after: change.after,
    };
    let fields = |tuning: Tuning| -> BTreeMap<String, Value> {
        tuning
            .fields()
            .map(|(name, value)| (name.to_owned(), number(value)))
            .collect()
    };
    let file = File {
        format: FORMAT,
        producer: PRODUCER.into(),
        subject,
        threads: found.best.threads,
        schedule: found.best.tuning.map(fields),
        measured: found.changes.iter().map(speed).collect(),
    };
    Ok(serde_json::to_string_pretty(&file)? + "\n")
}

/// Reads what was found for `subject`. The file may have been written by anyone.
///
/// # Errors
/// [`RecordError::Read`] and [`RecordError::Damaged`] say what is wrong with the file; [`RecordError::Other`] what it was
/// measured for, if that is something else.
pub fn read(path: &Path, subject: &Subject) -> Result<Choice, RecordError> {
    let name = || path.display().to_string();
    let mut bytes = vec![];
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| RecordError::Read { path: name(), source })?;
    let damaged = |reason: String| RecordError::Damaged { path: name(), reason };
    if bytes.len() as u64 > MOST_BYTES {
        return Err(damaged(format!("it has more than {MOST_BYTES} bytes")));
    }
    let other = |reason: String| RecordError::Other { path: name(), reason };
    let head: Head = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if head.format != FORMAT || head.producer != PRODUCER {
        return Err(other(format!("by {}, and this is {PRODUCER}", head.producer)));
    }
    let file: File = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    let choice = choice(&file).map_err(damaged)?;
    match difference(&file.subject, subject) {
        None => Ok(choice),
        Some(reason) => Err(other(reason)),
    }
}

/// What the file says, within what is possible.
fn choice(file: &File) -> Result<Choice, String> {
    if !(1..=MOST_THREADS).contains(&file.threads) {
        return Err(format!(
            "`threads` is {}, expected 1 to {MOST_THREADS}",
            file.threads
        ));
    }
    let tuning = match (&file.schedule, file.subject.compiled) {
        (None, true) => None,
        (Some(schedule), false) => Some(tuning(schedule)?),
        (Some(_), true) => return Err("a model that is compiled already has a `schedule`".into()),
        (None, false) => return Err("`schedule` is missing".into()),
    };
    Ok(Choice {
        threads: file.threads,
        tuning,
    })
}

/// Every field, and nothing else.
fn tuning(schedule: &BTreeMap<String, Value>) -> Result<Tuning, String> {
    if let Some(missing) = FIELDS.iter().find(|f| !schedule.contains_key(f.name)) {
        return Err(format!("`{}` is missing", missing.name));
    }
    // All fields are set.
    let mut tuning = Tuning::of(4, 16);
    for (name, value) in schedule {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        tuning.set(name, &text).map_err(|e| e.to_string())?;
    }
    Ok(tuning)
}

/// What is different, in words.
fn difference(found: &Subject, here: &Subject) -> Option<String> {
    if let Some(difference) = found.machine.difference(&here.machine) {
        return Some(difference);
    }
    if found.model != here.model {
        return Some("for another model".into());
    }
    let fields = [
        ("the backend", &found.backend, &here.backend),
        ("the target", &found.target, &here.target),
        ("weights", &found.weights, &here.weights),
    ];
    let different = fields.into_iter().find(|(_, found, here)| found != here);
    if let Some((what, found, here)) = different {
        return Some(format!("for {what} `{found}`, and this is `{here}`"));
    }
    (found.compiled != here.compiled).then(|| match found.compiled {
        true => "for a file that is compiled already, and this is not".into(),
        false => "for a checkpoint, and this is compiled already".into(),
    })
}

#[cfg(test)]
mod tests;
