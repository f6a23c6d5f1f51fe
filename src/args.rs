//! Arguments that several commands share.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use rwkvc_passes::pipeline;
use rwkvc_passes::settings::{SettingValue, Settings};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// The option that every command has.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

/// How a checkpoint is turned into code.
#[derive(Clone, Debug, Args)]
pub(crate) struct Codegen {
    /// Code generator: `llvm` (fastest code), `cranelift` (compiles fastest) or `evaluator` (the slow reference).
    /// Default: llvm where it is built in, else cranelift
    #[arg(long)]
    pub(crate) backend: Option<String>,
    /// Machine to compile for: `cpu` (this one), `cuda` (NVIDIA GPUs), or a level such as `cpu:x86-64-v3` or
    /// `cuda:sm_90`; see `rwkvc targets`
    #[arg(long, default_value = "cpu")]
    pub(crate) target: String,
    /// What `rwkvc tune` found, if not MODEL.tuning.json; `none` for the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passes: PassOptions,
}

/// Which passes run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PassOptions {
    /// Run only these passes, separated by commas; `none` for none, `unfused` for all that do not fuse
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) passes: Option<Vec<String>>,
    /// Leave out these passes, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) no_pass: Vec<String>,
    /// Print the graph after a pass to standard error; `all` for each
    #[arg(long, value_name = "PASS")]
    pub(crate) print_after: Option<String>,
    #[command(flatten)]
    pub(crate) settings: PassSettings,
    /// Stop rewriting after N rewrites: bisects a miscompilation
    #[arg(long, value_name = "N")]
    pub(crate) fuel: Option<u64>,
}

/// The settings of passes: an option for each row that has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct PassSettings(pub(crate) Settings);

impl Args for PassSettings {
    fn augment_args(command: Command) -> Command {
        pipeline::settings().fold(command, |command, row| {
            let option = Arg::new(row.name).long(row.name).value_name(row.value);
            command.arg(option.help(row.help).value_parser(row.read))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PassSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = PassSettings::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for row in pipeline::settings() {
            if let Some(value) = matches.get_one::<SettingValue>(row.name) {
                self.0.insert(value.clone());
            }
        }
        Ok(())
    }
}

/// How many threads.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Threads {
    /// Threads of the step. Default: what `rwkvc tune` found, else one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// Which GPU.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Device {
    /// Which GPU, counted from 0 as its driver counts. Default: 0
    #[arg(long, value_name = "N")]
    pub(crate) device: Option<u32>,
}

/// Which GPU, and how a step is started there.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OnGpu {
    /// How a step is started on a GPU; results are the same. Default: auto
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) gpu_mode: Option<GpuMode>,
    #[command(flatten)]
    pub(crate) device: Device,
}

/// How a step is started on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GpuMode {
    /// Kernel after kernel
    Launches,
    /// All kernels recorded once as a CUDA graph, and started together
    Graph,
    /// One kernel that stays on the device for the whole step
    Persistent,
    /// What is known to be good everywhere: `graph`
    Auto,
}
