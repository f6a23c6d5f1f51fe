//! Models of any shape: random small configurations, every backend, fused and unfused, decode and chunks, against the f64
//! evaluator.

use std::sync::Arc;

use rwkvc::backends;
use rwkvc::compile::Options;
use rwkvc::engine::{self, Engine, Reference};
use rwkvc_backend_api::Target;
use rwkvc_frontend::generate::{GenerateOptions, generate};
use rwkvc_frontend::model::Model;
use rwkvc_ir::DType;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::WorkspaceOptions;
use rwkvc_runtime::manifest::ProgramKind;

/// Largest difference of a logit, relative to the largest logit.
const TOLERANCE: f64 = 3e-6;

/// A small generator of numbers, the same at every run.
struct Random(u64);

impl Random {
    /// From `low` to `high`, both possible.
    fn range(&mut self, low: usize, high: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        low + (self.0 >> 33) as usize % (high - low + 1)
    }
}

fn options(random: &mut Random, seed: u64) -> GenerateOptions {
    let head_size = [4, 8, 16, 20, 32, 64][random.range(0, 5)];
    GenerateOptions {
        n_layers: random.range(1, 3),
        width: head_size * random.range(1, 3),
        head_size,
        ffn: random.range(1, 150),
        vocab: random.range(5, 130),
        ranks: [0; 4].map(|_| random.range(1, 33)),
        dtype: [DType::F32, DType::F16, DType::BF16][random.range(0, 2)],
        seed,
        layer0_value_gate: random.range(0, 1) == 0,
        has_ln0: random.range(0, 1) == 0,
        zero_share: None,
    }
}

fn model(options: &GenerateOptions) -> Arc<Model> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("random.safetensors");
    let mut file = std::fs::File::create(&path).expect("a file");
    generate(options, &mut file, &mut |_, _| {}).expect("a checkpoint");
    engine::open_checkpoint(&path).expect("a model")
}

/// Logits of every token.
fn logits(model: &Arc<Model>, options: &mut Options<'_>, tokens: &[u32], threads: usize) -> Vec<f64> {
    let code = engine::load(model, options).expect("the model compiles");
    let mut workspace = code
        .workspace(&WorkspaceOptions { threads, pin: false })
        .expect("memory");
    let mut state = code.new_state().expect("memory");
    let mut all = vec![];
    if options.programs == [ProgramKind::Decode] {
        for &token in tokens {
            let row = code.step(&mut workspace, &mut state, token).expect("a step");
            all.extend(row.iter().map(|&x| f64::from(x)));
        }
    } else {
        code.score(&mut workspace, &mut state, tokens, &mut |_, row| {
            all.extend(row.iter().map(|&x| f64::from(x)))
        })
        .expect("a run");
    }
    all
}

#[test]
fn random_models_on_every_backend() {
    let mut random = Random(7);
    for case in 0..12 {
        let generated = options(&mut random, case);
        let model = model(&generated);
        let length = random.range(1, 37);
        let tokens: Vec<u32> = (0..length)
            .map(|_| random.range(0, generated.vocab - 1) as u32)
            .collect();
        let mut expected = vec![];
        let mut reference = Reference::new(Arc::clone(&model)).expect("a graph");
        reference
            .score(&tokens, &mut |row| {
                expected.extend(row.iter().map(|&x| f64::from(x)));
                Ok(())
            })
            .expect("the graph evaluates");
        let largest = expected.iter().fold(1f64, |m, x| m.max(x.abs()));
        for backend in backends::all() {
            for (variant, passes) in [("fused", Selection::all()), ("unfused", Selection::unfused())] {
                for program in [ProgramKind::Decode, ProgramKind::Score] {
                    let mut options = Options {
                        backend,
                        target: Target::host(),
                        passes: passes.clone(),
                        fuel: None,
                        programs: vec![program],
                        probes: false,
                        after_pass: &mut |_, _| {},
                    };
                    let found = logits(&model, &mut options, &tokens, random.range(1, 3));
                    assert_eq!(found.len(), expected.len());
                    for (i, (x, y)) in found.iter().zip(&expected).enumerate() {
                        let difference = (x - y).abs() / largest;
                        assert!(
                            difference <= TOLERANCE,
                            "{generated:?}, {}, {variant}, {program}: logit {i} is {x}, expected {y}",
                            backend.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_published_size_in_bf16() {
    // The shape of the 0.1B model but for its vocabulary, which is all table look-up and one product.
    let generated = GenerateOptions {
        vocab: 2048,
        ..GenerateOptions::preset("0.1b").expect("a preset")
    };
    let model = model(&generated);
    let tokens = [1, 77, 2047, 500, 3];
    let mut expected = vec![];
    let mut reference = Reference::new(Arc::clone(&model)).expect("a graph");
    reference
        .score(&tokens, &mut |row| {
            expected.extend(row.iter().map(|&x| f64::from(x)));
            Ok(())
        })
        .expect("the graph evaluates");
    let largest = expected.iter().fold(1f64, |m, x| m.max(x.abs()));
    for program in [ProgramKind::Decode, ProgramKind::Score] {
        let mut options = Options {
            backend: backends::all()[0],
            target: Target::host(),
            passes: Selection::all(),
            fuel: None,
            programs: vec![program],
            probes: false,
            after_pass: &mut |_, _| {},
        };
        let found = logits(&model, &mut options, &tokens, 2);
        let difference = found
            .iter()
            .zip(&expected)
            .map(|(x, y)| (x - y).abs())
            .fold(0.0, f64::max);
        assert!(
            difference <= 2.0 * TOLERANCE * largest,
            "{program}: {difference:e} of {largest}"
        );
    }
}
