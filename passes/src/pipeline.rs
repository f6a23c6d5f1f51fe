//! The passes, by name and in order.

use rwkvc_ir::graph::{Graph, GraphError};

use crate::bf16_activations::Activations;
use crate::fuel::Fuel;
use crate::quantize::Formats;
use crate::settings::{Setting, SettingRow, Settings};
use crate::{
    bf16_activations, cse, fold, fuse_epilogue, fuse_lora, fuse_norm, fuse_token_shift, fuse_wkv7,
    merge_projections, quantize, skip_zero_activations,
};

/// A rewrite of a graph that leaves its meaning alone.
pub struct Pass {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for `rwkvc passes`.
    pub summary: &'static str,
    /// Whether it fuses ops; *unfused* means: without these.
    pub fuses: bool,
    /// What it can be told.
    pub setting: Option<SettingRow>,
    run: fn(&mut Graph, &Settings, &mut Fuel) -> Result<(), GraphError>,
}

/// All passes, in the order that they run.
pub const STANDARD: &[Pass] = &[
    Pass {
        name: "fold-constants",
        summary: "compute scalar arithmetic on constants; drop `x * 1` and `x + 0`",
        fuses: false,
        setting: None,
        run: |graph, _, fuel| fold::constants(graph, fuel),
    },
    Pass {
        name: "fold-ln0",
        summary: "normalise a small embedding table once instead of each token's row: layer_norm(embed) → embed(layer_norm)",
        fuses: false,
        setting: None,
        run: |graph, _, fuel| fold::ln0(graph, fuel),
    },
    Pass {
        name: "cse",
        summary: "compute equal values once",
        fuses: false,
        setting: None,
        run: |graph, _, fuel| cse::cse(graph, fuel),
    },
    Pass {
        name: "fuse-token-shift",
        summary: "token_shift and every interpolation with it → shift_mix",
        fuses: true,
        setting: None,
        run: |graph, _, fuel| fuse_token_shift::run(graph, fuel),
    },
    Pass {
        name: "fuse-norm",
        summary: "a layer norm that feeds one shift_mix → norm_shift_mix",
        fuses: true,
        setting: None,
        run: |graph, _, fuel| fuse_norm::run(graph, fuel),
    },
    Pass {
        name: "fuse-wkv7",
        summary: "decay, key normalisation, WKV-7 update, group norm, bonus and gate of a head → wkv7_block",
        fuses: true,
        setting: None,
        run: |graph, _, fuel| fuse_wkv7::run(graph, fuel),
    },
    Pass {
        name: "fuse-epilogue",
        summary: "bias, activation, gate and residual ride along with a matrix product → linear_group",
        fuses: true,
        setting: None,
        run: |graph, _, fuel| fuse_epilogue::run(graph, fuel),
    },
    Pass {
        name: "fuse-lora",
        summary: "the low-rank chains of a block become two launches: all first halves, all second halves",
        fuses: true,
        setting: None,
        run: |graph, _, fuel| fuse_lora::run(graph, fuel),
    },
    Pass {
        name: "merge-projections",
        summary: "products of the mixes of one token shift share one launch",
        fuses: true,
        setting: None,
        run: |graph, _, fuel| merge_projections::run(graph, fuel),
    },
    Pass {
        name: "skip-zero-activations",
        summary: "read only those columns of a matrix whose rectified activation is not zero",
        fuses: true,
        setting: None,
        run: |graph, _, fuel| skip_zero_activations::run(graph, fuel),
    },
    Pass {
        name: "quantize",
        summary: "store matrices in the formats of --weights and multiply in integers: linear(x, w) → linear(quantize(x), quantize(w))",
        fuses: false,
        setting: Some(SettingRow::of::<Formats>()),
        run: |graph, settings, fuel| quantize::run(graph, &settings.get(), fuel),
    },
    Pass {
        name: "bf16-activations",
        summary: "of many tokens, multiply what --activations says with bf16 matrices: linear(x, w) → linear(to_bf16(x), w)",
        fuses: false,
        setting: Some(SettingRow::of::<Activations>()),
        run: |graph, settings, fuel| bf16_activations::run(graph, settings.get(), fuel),
    },
    Pass {
        name: "dce",
        summary: "remove what no output needs",
        fuses: false,
        setting: None,
        run: |graph, _, fuel| fold::dead(graph, fuel),
    },
];

/// The settings of all passes.
pub fn settings() -> impl Iterator<Item = &'static SettingRow> {
    STANDARD.iter().filter_map(|pass| pass.setting.as_ref())
}

/// Which passes to run, and what they are told.
#[derive(Clone, Debug)]
pub struct Selection {
    names: Vec<&'static str>,
    settings: Settings,
}

/// A pass name that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("there is no pass `{name}`; the passes are {}", STANDARD.iter().map(|p| p.name).collect::<Vec<_>>().join(", "))]
pub struct UnknownPass {
    /// What was asked for.
    pub name: String,
}

impl Selection {
    /// Every pass.
    pub fn all() -> Self {
        Selection {
            names: STANDARD.iter().map(|p| p.name).collect(),
            settings: Settings::default(),
        }
    }

    /// Every pass that does not fuse: one kernel per graph op.
    pub fn unfused() -> Self {
        Selection {
            names: STANDARD.iter().filter(|p| !p.fuses).map(|p| p.name).collect(),
            settings: Settings::default(),
        }
    }

    /// These passes, in the standard order.
    ///
    /// # Errors
    /// If there is no pass of such a name.
    pub fn only(names: &[impl AsRef<str>]) -> Result<Self, UnknownPass> {
        let known = names
            .iter()
            .map(|n| find(n.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Selection {
            names: STANDARD
                .iter()
                .map(|p| p.name)
                .filter(|n| known.contains(n))
                .collect(),
            settings: Settings::default(),
        })
    }

    /// This selection without some passes.
    ///
    /// # Errors
    /// If there is no pass of such a name.
    pub fn without(mut self, names: &[impl AsRef<str>]) -> Result<Self, UnknownPass> {
        let gone = names
            .iter()
            .map(|n| find(n.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        self.names.retain(|n| !gone.contains(n));
        Ok(self)
    }

    /// This selection with a setting.
    #[must_use]
    pub fn with(mut self, setting: impl Setting) -> Self {
        self.settings = self.settings.with(setting);
        self
    }

    /// This selection with other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A setting: what was given, or else the default.
    pub fn setting<S: Setting>(&self) -> S {
        self.settings.get()
    }

    /// The names, in order.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }
}

fn find(name: &str) -> Result<&'static str, UnknownPass> {
    let pass = STANDARD.iter().find(|p| p.name == name);
    pass.map(|p| p.name)
        .ok_or_else(|| UnknownPass { name: name.into() })
}

/// A pass left a graph that does not verify, or could not build its replacement: a bug of the pass.
#[derive(Debug, thiserror::Error)]
#[error("pass `{pass}` produced an invalid graph: {source}")]
pub struct PassError {
    /// The pass.
    pub pass: &'static str,
    /// The graph from before it, as text.
    pub before: String,
    /// What is wrong.
    pub source: Box<GraphError>,
}

/// Runs the selected passes. `after` sees the graph after each.
///
/// # Errors
/// If the graph, or what a pass leaves, does not verify: a bug of the pass that the error names.
pub fn run(
    graph: Graph,
    selection: &Selection,
    fuel: &mut Fuel,
    after: &mut dyn FnMut(&'static str, &Graph),
) -> Result<rwkvc_ir::graph::Verified<Graph>, PassError> {
    let verify = |graph: Graph, pass, before: &Graph| {
        rwkvc_ir::graph::verify(graph).map_err(|source| PassError {
            pass,
            before: before.to_string(),
            source: source.into(),
        })
    };
    let mut current = verify(graph.clone(), "none", &graph)?;
    for pass in STANDARD.iter().filter(|p| selection.names.contains(&p.name)) {
        let before = current.clone().into_inner();
        let mut graph = before.clone();
        (pass.run)(&mut graph, &selection.settings, fuel).map_err(|source| PassError {
            pass: pass.name,
            before: before.to_string(),
            source: source.into(),
        })?;
        graph.remove_dead();
        current = verify(graph, pass.name, &before)?;
        after(pass.name, &current);
    }
    Ok(current)
}
