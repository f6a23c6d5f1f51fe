//! What the arguments say about compiling, for the compiler.

use anyhow::{Result, bail};
use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::Arch;
use rwkvc_frontend::model::Model;
use rwkvc_ir::graph::Graph;
use rwkvc_passes::bf16_activations::Activations;
use rwkvc_passes::pipeline::{self, STANDARD, Selection};
use rwkvc_passes::quantize::Formats;
use rwkvc_passes::settings::Settings;

use crate::args::{Codegen, PassOptions};
use crate::{output, tuned};

/// What the command line says about compiling.
pub(crate) fn compile_options<'o>(
    codegen: &Codegen,
    programs: &[ProgramKind],
    after_pass: &'o mut dyn FnMut(&'static str, &Graph),
) -> Result<Options<'o>> {
    let target = backends::target(&codegen.target)?;
    let passes = selection(&codegen.passes)?;
    let formats = passes.setting::<Formats>();
    if target.arch == Arch::Cuda && !formats.are_stored() {
        bail!("--weights {formats} is for CPUs: GPUs take weights as they are stored");
    }
    if target.arch == Arch::Cuda {
        tuned::refuse_tuning(codegen, "schedules for GPUs are not tuned")?;
    } else {
        refuse_bf16_on_cpus(&passes)?;
    }
    Ok(Options {
        backend: backends::find(codegen.backend.as_deref())?,
        target,
        passes,
        tuning: None,
        fuel: codegen.passes.fuel,
        programs: programs.to_vec(),
        probes: false,
        after_pass,
    })
}

/// The passes that `--passes` and `--no-pass` leave.
pub(crate) fn selection(options: &PassOptions) -> Result<Selection> {
    let all = match &options.passes {
        None => Selection::all(),
        Some(names) => match &names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["none"] => Selection::only(&[] as &[&str])?,
            ["unfused"] => Selection::unfused(),
            names => Selection::only(names)?,
        },
    };
    Ok(all
        .without(&options.no_pass)?
        .with_settings(options.settings.0.clone()))
}

/// Prints the graph after the pass that `--print-after` names.
pub(crate) fn printer(options: &PassOptions) -> Result<impl FnMut(&'static str, &Graph) + use<>> {
    let wanted = options.print_after.clone();
    if let Some(name) = wanted.as_deref().filter(|&n| n != "all")
        && !STANDARD.iter().any(|p| p.name == name)
    {
        bail!("there is no pass `{name}` to print after; `rwkvc passes` lists them");
    }
    Ok(move |pass: &'static str, graph: &Graph| {
        if wanted.as_deref().is_some_and(|w| w == "all" || w == pass) {
            output::note(&format!("; after {pass}\n{graph}"));
        }
    })
}

/// The formats of matrices on a CPU. Without `--weights`, the blocks of a quantised checkpoint are multiplied as they are.
pub(crate) fn formats(passes: &PassOptions, model: &Model) -> Formats {
    let groups = || model.groups().map(|(name, format)| (name.to_owned(), format));
    let given = passes.settings.0.given().cloned();
    given.unwrap_or_else(|| Formats::as_stored(groups()))
}

/// Gives the matrices of a model their formats.
pub(crate) fn choose_formats(codegen: &Codegen, model: &Model, options: &mut Options<'_>) {
    if options.target.arch != Arch::Cuda {
        let formats = formats(&codegen.passes, model);
        options.passes = options.passes.clone().with(formats);
    }
}

/// Rounded activations are multiplied with bf16 matrices only.
pub(crate) fn check_activations(settings: &Settings, model: &Model) -> Result<()> {
    let activations: Activations = settings.get();
    let formats = model.summary().parameters_by_dtype;
    if activations == Activations::BF16 && !formats.iter().any(|(name, _)| name == activations.name()) {
        let formats: Vec<&str> = formats.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            "--activations bf16 goes with bf16 matrices, and those of this model are {}",
            formats.join(" and ")
        );
    }
    Ok(())
}

/// Refuses rounded activations on a CPU, which multiplies in f32.
pub(crate) fn refuse_bf16_on_cpus(passes: &Selection) -> Result<()> {
    let activations = passes.setting::<Activations>();
    if activations != Activations::F32 {
        bail!("--activations {activations} is for the matrix units of GPUs: CPUs multiply in f32");
    }
    Ok(())
}

/// An option that is given and says how to compile.
pub(crate) fn codegen_option(codegen: &Codegen) -> Option<&'static str> {
    codegen_options(codegen).next()
}

/// The options that are given and say how to compile, without their dashes.
fn codegen_options(codegen: &Codegen) -> impl Iterator<Item = &'static str> {
    let passes = &codegen.passes;
    let given = [
        ("passes", passes.passes.is_some()),
        ("no-pass", !passes.no_pass.is_empty()),
        ("print-after", passes.print_after.is_some()),
        ("fuel", passes.fuel.is_some()),
        ("target", codegen.target != "cpu"),
        ("backend", codegen.backend.is_some()),
    ];
    let settings = pipeline::settings().map(|row| (row.name, passes.settings.0.has(row)));
    given
        .into_iter()
        .chain(settings)
        .filter(|(_, given)| *given)
        .map(|(name, _)| name)
}

/// An option that is given and means nothing to the evaluator, which generates no code.
pub(crate) fn option_of_code(codegen: &Codegen) -> Option<&'static str> {
    let is_setting = |option: &str| pipeline::settings().any(|row| row.name == option);
    codegen_options(codegen).find(|option| *option != "backend" && !is_setting(option))
}
