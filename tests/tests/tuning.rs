//! Whatever a tuning chooses, kernels compute the same: each value of each field, and mixtures of them, by every program.

use std::sync::Arc;

use rwkvc::backends;
use rwkvc::reference::Reference;
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::tuning::FIELDS;
use rwkvc_backend_api::{Backend, Features, Target, Tuning};
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_frontend::model::Model;
use rwkvc_passes::quantize::Formats;
use rwkvc_passes::settings::Settings;
use rwkvc_runtime::exec::Device;
use rwkvc_tests::cases::Case;
use rwkvc_tests::fixtures::open_bytes;
use rwkvc_tests::numbers::{difference, largest};
use rwkvc_tests::random::{self, Random};
use rwkvc_tests::reference::evaluate;
use rwkvc_tests::session::Session;

/// Largest difference of a logit from the evaluator, relative to the largest logit, or to 1.
const TOLERANCE: f64 = 3e-6;

/// The same with quantised weights, where an activation may get the code beside the one that it has in the evaluator.
const QUANTISED: f64 = 0.05;

/// So many tunings that together have every value of every field, in mixtures that differ with `stride`.
fn tunings(default: Tuning, stride: usize) -> Vec<Tuning> {
    let most = FIELDS.iter().map(|f| f.values().len()).max();
    let mixture = |i: usize| {
        let mut tuning = default;
        for (number, field) in FIELDS.iter().enumerate() {
            let values = field.values();
            let value = &values[(i + number * stride) % values.len()];
            field.set(&mut tuning, value).expect("a value of the field");
        }
        tuning
    };
    (0..most.expect("there are fields")).map(mixture).collect()
}

/// Matrices of several panels, tasks that are not full, rows that are no multiple of a tile.
fn model() -> Arc<Model> {
    open_bytes(&random::file(&GenerateOptions {
        vocab: VOCAB,
        n_layers: 1,
        width: 192,
        ffn: 224,
        zero_share: Some(0.6),
        ..GenerateOptions::preset("0.1b").expect("a preset")
    }))
}

const VOCAB: usize = 77;

/// Decode and prefill show all kernels of products; a batch and scoring have those of prefill.
const BOTH: [ProgramKind; 2] = [ProgramKind::Decode, ProgramKind::Prefill];

fn default_of(backend: &dyn Backend) -> Tuning {
    match backend.supports(&Target::host()).expect("this machine") {
        Features::Cpu(features) => features.tuning,
        Features::Gpu(_) => panic!("this machine is a CPU"),
    }
}

#[test]
fn every_choice_computes_the_same() {
    let model = model();
    let tokens = Random(3).tokens(41, VOCAB);
    let expected = evaluate(&model, &tokens).logits;
    let most = TOLERANCE * largest(&expected).max(1.0);
    for (stride, backend) in backends::all().into_iter().enumerate() {
        let mut case = Case::fused(backend);
        for tuning in tunings(default_of(backend), stride) {
            case.tuning = Some(tuning);
            let code = case.load(&model, &BOTH);
            let chunk = code
                .manifest()
                .program(ProgramKind::Prefill)
                .map(|p| p.max_tokens);
            assert_eq!(chunk, Some(tuning.chunk as usize));
            let check = |found: &[f32], until: usize| {
                let expected = &expected[until * VOCAB - found.len()..until * VOCAB];
                let found = difference(found, expected);
                assert!(
                    found <= most,
                    "{case}, {tuning:?}, {until} tokens: {found:e}, expected {most:e}"
                );
            };
            check(&Session::new(&code, 2).decode(&tokens[..3]), 3);
            // Few tokens, and as many as tiles of every shape take, with some left over.
            for n in [5, 41] {
                check(&Session::new(&code, 1).prefill(&tokens[..n]), n);
            }
        }
    }
}

#[test]
fn every_choice_computes_the_same_with_quantised_weights() {
    let model = model();
    let tokens = Random(5).tokens(19, VOCAB);
    let backend = backends::all()[0];
    for (stride, weights) in ["int8", "int4"].into_iter().enumerate() {
        let formats: Formats = weights.parse().expect(weights);
        let mut reference =
            Reference::new(model.clone(), &Settings::default().with(formats.clone())).expect("a reference");
        let expected = reference.prefill(&tokens).expect("logits").to_vec();
        let most = QUANTISED * largest(&expected).max(1.0);
        let mut case = Case::fused(backend);
        case.passes = case.passes.with(formats);
        for tuning in tunings(default_of(backend), stride) {
            case.tuning = Some(tuning);
            let code = case.load(&model, &BOTH);
            let decoded = Session::new(&code, 2).decode(&tokens);
            let prefilled = Session::new(&code, 1).prefill(&tokens);
            for found in [&decoded[decoded.len() - VOCAB..], &prefilled] {
                let found = difference(found, &expected);
                assert!(
                    found <= most,
                    "{weights}, {tuning:?}: {found:e}, expected {most:e}"
                );
            }
        }
    }
}
