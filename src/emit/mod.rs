//! What `rwkvc compile --emit` writes: a table of forms, a file for each.

mod artifact;
mod graph;
mod kernel;
mod sass;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rwkvc::backends::{self, Entry};
use rwkvc::compile::{Options, plan_model};
use rwkvc_backend_api::{DeviceKind, Stage};
use rwkvc_frontend::model::Model;

/// A form that a model can be written in.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it is, for the help text.
    summary: &'static str,
    /// The kinds of devices whose code can have it.
    devices: &'static [DeviceKind],
    /// Whether it is text, which may go to standard output.
    pub(crate) is_text: bool,
    write: Write,
}

/// How a form is written.
#[derive(Clone, Copy)]
enum Write {
    /// From bytes in memory.
    Bytes(fn(&Model, &mut Options<'_>) -> Result<Vec<u8>>),
    /// Piece by piece, as it has the weights.
    File(fn(&Arc<Model>, &mut Options<'_>, &Path) -> Result<()>),
    /// By the backend.
    Stage(&'static Stage),
    /// Not here: only a backend that is not built in has it.
    Missing(&'static Entry),
}

/// Every kind of device.
const ALL: &[DeviceKind] = &[DeviceKind::Cpu, DeviceKind::Gpu];

/// The forms that do not depend on a backend. The stages of the backends come after them.
const TABLE: &[Form] = &[
    artifact::ARTIFACT,
    graph::GRAPH,
    graph::DOT,
    kernel::KERNEL,
    sass::SASS,
];

/// All forms, each name once.
fn forms() -> Vec<Form> {
    let mut forms = TABLE.to_vec();
    for stage in backends::all().iter().flat_map(|backend| backend.stages()) {
        if forms.iter().all(|form| form.name != stage.name) {
            forms.push(Form {
                name: stage.name,
                summary: stage.summary,
                devices: stage.devices,
                is_text: stage.is_text,
                write: Write::Stage(stage),
            });
        }
    }
    for entry in backends::TABLE {
        for name in entry.stages {
            if forms.iter().all(|form| form.name != *name) {
                forms.push(Form {
                    name,
                    summary: "Only with a backend that is not compiled into this rwkvc",
                    devices: ALL,
                    is_text: true,
                    write: Write::Missing(entry),
                });
            }
        }
    }
    forms
}

impl Form {
    /// Reads a form from the command line.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Form> {
        let value = |form: &Form| PossibleValue::new(form.name).help(form.summary);
        let names = PossibleValuesParser::new(forms().iter().map(value).collect::<Vec<_>>());
        names.try_map(|name| {
            let form = forms().into_iter().find(|form| form.name == name);
            form.ok_or("this form is not in the table")
        })
    }

    /// Refuses code of another kind of device.
    ///
    /// # Errors
    /// Names the forms that code for the target can have.
    pub(crate) fn check(&self, options: &Options<'_>) -> Result<()> {
        let device = options.target.arch.device();
        if self.devices.contains(&device) {
            return Ok(());
        }
        let own: Vec<_> = forms()
            .into_iter()
            .filter(|form| form.devices == [device])
            .map(|form| form.name)
            .collect();
        bail!(
            "code for {} has no form `{}`: give --emit {}",
            options.target,
            self.name,
            own.join(" or ")
        )
    }

    /// Writes a model to a file, or gives the bytes to be written.
    ///
    /// # Errors
    /// If the model cannot be compiled so far, or the file cannot be written.
    pub(crate) fn write(
        &self,
        model: &Arc<Model>,
        options: &mut Options<'_>,
        path: &Path,
    ) -> Result<Option<Vec<u8>>> {
        match self.write {
            Write::File(write) => write(model, options, path).map(|()| None),
            Write::Bytes(bytes) => bytes(model, options).map(Some),
            Write::Missing(entry) => bail!(
                "`{}` is a stage of the backend `{}`, which is not compiled into this rwkvc; {}",
                self.name,
                entry.name,
                entry.how_to_get
            ),
            Write::Stage(stage) => {
                let plan = plan_model(model, options)?;
                let bytes = options.backend.emit(&plan.kernels, &options.target, stage.name)?;
                Ok(Some(bytes))
            }
        }
    }
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
