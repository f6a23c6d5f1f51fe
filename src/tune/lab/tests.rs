//! Weights that several models share.

use rwkvc_backend_api::Target;
use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_passes::pipeline::Selection;
use rwkvc_passes::quantize::Formats;

use super::*;
use crate::backends;
use crate::compile::plan_model;
use crate::load::open_checkpoint;

fn model(folder: &tempfile::TempDir) -> Arc<rwkvc_frontend::model::Model> {
    let mut bytes = vec![];
    let sizes = GenerateOptions {
        vocab: 64,
        n_layers: 1,
        width: 192,
        ffn: 224,
        ..GenerateOptions::preset("0.1b").expect("a preset")
    };
    generate(&sizes, &mut bytes, &mut |_, _| {}).expect("sizes that make a model");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).expect("a file");
    open_checkpoint(&path).expect("a model")
}

fn plan(model: &rwkvc_frontend::model::Model, weights: &str, panel_outputs: &str) -> Plan {
    let mut tuning = Tuning::of(8, 16);
    tuning.set("panel_outputs", panel_outputs).expect("a value");
    let mut options = Options {
        backend: backends::all()[0],
        target: Target::host(),
        passes: Selection::all().with(weights.parse::<Formats>().expect(weights)),
        tuning: Some(tuning),
        fuel: None,
        programs: vec![ProgramKind::Decode],
        probes: false,
        after_pass: &mut |_, _| {},
    };
    plan_model(model, &mut options).expect("a plan")
}

#[test]
fn weights_are_computed_once_for_all_that_have_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = model(&folder);
    let mut shared = Shared::default();
    // Each with the parts that its panels have.
    for (weights, parts) in [("stored", 1), ("int8", 2), ("int4", 3)] {
        // Held, so that the next plan finds them.
        let mut held: Vec<Vec<WeightData>> = vec![];
        for panel_outputs in ["512", "128", "512"] {
            let mut plan = plan(&model, weights, panel_outputs);
            let expected = super::weights(&model, &plan).expect("weights");
            let found = shared.weights(&model, &mut plan).expect("weights");
            let bytes = |all: &[WeightData]| -> Vec<Vec<u8>> {
                all.iter().map(|w| w.bytes().expect("bytes").to_vec()).collect()
            };
            assert!(
                bytes(&found) == bytes(&expected),
                "{weights}, {panel_outputs}: other bytes"
            );
            held.push(found);
        }
        let places = |i: usize| -> Vec<*const u8> {
            let bytes = held[i].iter().map(|w| w.bytes().expect("bytes").as_ptr());
            bytes.collect()
        };
        assert_eq!(places(0), places(2), "{weights}: nothing is computed twice");
        let new = places(1).iter().filter(|p| !places(0).contains(p)).count();
        assert_eq!(new, parts, "{weights}");
    }
}
