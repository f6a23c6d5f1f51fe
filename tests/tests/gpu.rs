//! Whole models as GPUs run them, launch by launch, fused and unfused: the evaluator of kernels and fibers leave the same
//! bits, which are close to what the f64 evaluator of graphs and the goldens say.

use std::cell::Cell;

use rwkvc::backends;
use rwkvc_abi::ProgramKind;
use rwkvc_backend_api::Target;
use rwkvc_frontend::build::{Logits, build, initial_state};
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_frontend::model::Model;
use rwkvc_ir::DType;
use rwkvc_ir::Verified;
use rwkvc_ir::graph::eval::eval;
use rwkvc_ir::graph::{parse, verify};
use rwkvc_ir::kernel::Kernel;
use rwkvc_passes::bf16_activations::Activations;
use rwkvc_passes::fuel::Fuel;
use rwkvc_passes::pipeline::{Selection, run};
use rwkvc_passes::plan::{Plan, Shape, plan};
use rwkvc_tests::cases::{PROGRAMS, fibers, planned_for_gpus};
use rwkvc_tests::fixtures::{self, Golden, open_bytes};
use rwkvc_tests::interpret::{Call, Evaluator, Interpreter, Machine};
use rwkvc_tests::numbers::{difference, largest};
use rwkvc_tests::random::{self, Extras, Random};
use rwkvc_tests::reference::{Expected, evaluate};
use rwkvc_tests::values::Values;

/// Largest difference of a logit or a part of the state, relative to the largest value of its tensor, or to 1.
const TOLERANCE: f64 = 3e-6;

/// The same where activations are rounded, which is to be seen.
const ROUNDED: f64 = 5e-3;

/// Largest difference of a logit of the demo from its float64 golden.
const LOGITS: f64 = 2e-5;

fn target() -> Target {
    Target::parse("cuda:sm_80").expect("a target")
}

fn variants() -> [(&'static str, Selection); 2] {
    [("fused", Selection::all()), ("unfused", Selection::unfused())]
}

fn planned(model: &Model, passes: &Selection) -> Plan {
    planned_for_gpus(model, &target(), passes)
}

/// The plan of one token of each of up to `states` states.
fn planned_batch(model: &Model, passes: &Selection, states: usize) -> Plan {
    let graph = build(model, Logits::All, false).expect("a graph");
    let graph = graph.specialise(None, Some(1));
    let graph = run(graph, passes, &mut Fuel::new(None), &mut |_, _| {}).expect("a better graph");
    let shape = Shape {
        kind: ProgramKind::Batch,
        graph: &graph,
        max_tokens: states,
    };
    let mut plan = plan(&[shape], &backends::all()[0].supports(&target()).expect("a GPU"))
        .unwrap_or_else(|e| panic!("{e}"));
    for i in 0..plan.state.len() {
        if let Some((weight, value)) = initial_state(model, &plan.state[i].name).expect("a state") {
            plan.set_initial(i, weight, value);
        }
    }
    plan
}

/// The evaluator and, where LLVM is built in, fibers, which must leave the same bits.
struct Both {
    fibers: Option<Box<dyn Machine>>,
    /// The launches for which both still run; later ones are for the faster one.
    both: Cell<usize>,
}

impl Both {
    fn new(kernels: &[Verified<Kernel>], both: usize) -> Self {
        Both {
            fibers: fibers(kernels, &target()),
            both: Cell::new(both),
        }
    }
}

impl Machine for Both {
    fn launch(&self, call: &Call<'_>, buffers: &mut [Vec<u8>]) -> Result<(), String> {
        let Some(fibers) = &self.fibers else {
            return Evaluator.launch(call, buffers);
        };
        let mut expected = buffers.to_vec();
        fibers.launch(call, buffers)?;
        let Some(left) = self.both.get().checked_sub(1) else {
            return Ok(());
        };
        self.both.set(left);
        Evaluator.launch(call, &mut expected)?;
        let different = (0..buffers.len()).find(|&i| buffers[i] != expected[i]);
        match different.map(|i| &call.kernel.params[i].name) {
            None => Ok(()),
            Some(name) => Err(format!(
                "fibers and evaluator differ in `{name}` of\n{}",
                call.kernel
            )),
        }
    }
}

/// One text on one plan.
struct Run<'p> {
    plan: &'p Plan,
    machine: &'p Both,
    interpreter: Interpreter<'p>,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan, model: &Model, machine: &'p Both) -> Self {
        Run {
            plan,
            machine,
            interpreter: Interpreter::new(plan, model).unwrap_or_else(|e| panic!("{e}")),
        }
    }

    /// One call; its logits.
    fn call(&mut self, kind: ProgramKind, tokens: &[u32]) -> Vec<f64> {
        let program = PROGRAMS.iter().position(|&p| p == kind).expect("it is planned");
        assert!(tokens.len() <= self.plan.programs[program].max_tokens, "one call");
        self.interpreter
            .call(program, tokens, self.machine)
            .unwrap_or_else(|e| panic!("{kind}: {e}"));
        self.interpreter.outputs(program).remove(0).1
    }

    fn state(&self) -> Vec<(String, Vec<f64>)> {
        self.interpreter.outputs(0).split_off(1)
    }
}

fn check(what: &str, found: &[f64], expected: &[f64]) {
    let found = difference(found, expected);
    let most = TOLERANCE * largest(expected).max(1.0);
    assert!(
        found <= most,
        "{what} differs by {found:e}, at most {most:e} is expected"
    );
}

fn check_state(what: &str, run: &Run<'_>, expected: &Expected) {
    let found = run.state();
    assert_eq!(found.len(), expected.state.len(), "{what}: as many parts");
    for ((name, found), (other, expected)) in found.iter().zip(&expected.state) {
        assert_eq!(name, other, "{what}: the order of the parts");
        check(&format!("{what}: {name}"), found, expected);
    }
}

/// By every program.
fn check_model(what: &str, model: &Model, tokens: &[u32]) {
    let expected = evaluate(model, tokens);
    for (variant, passes) in variants() {
        let what = format!("{what}, {variant}");
        let plan = planned(model, &passes);
        let machine = Both::new(&plan.kernels, usize::MAX);
        let new = || Run::new(&plan, model, &machine);

        let mut decode = new();
        let steps = tokens
            .iter()
            .flat_map(|&t| decode.call(ProgramKind::Decode, &[t]));
        let rows: Vec<f64> = steps.collect();
        check(&format!("{what}: decode"), &rows, &expected.logits);
        check_state(&format!("{what}: decode"), &decode, &expected);

        // In two calls, of which the second goes on with a state.
        let mut score = new();
        let chunks = tokens.chunks(tokens.len().div_ceil(2));
        let rows: Vec<f64> = chunks.flat_map(|c| score.call(ProgramKind::Score, c)).collect();
        check(&format!("{what}: score"), &rows, &expected.logits);
        check_state(&format!("{what}: score"), &score, &expected);

        let mut prefill = new();
        let last = prefill.call(ProgramKind::Prefill, tokens);
        let vocab = model.config().vocab;
        check(
            &format!("{what}: prefill"),
            &last,
            &expected.logits[(tokens.len() - 1) * vocab..],
        );
        check_state(&format!("{what}: prefill"), &prefill, &expected);
    }
}

/// Many texts together, each of which must come out as it does alone.
fn check_batch(what: &str, model: &Model, texts: &[Vec<u32>]) {
    // More than there are texts: each part of the state then has rows that are not used.
    let most = texts.len() + 1;
    let expected: Vec<Expected> = texts.iter().map(|text| evaluate(model, text)).collect();
    let vocab = model.config().vocab;
    for (variant, passes) in variants() {
        let what = format!("{what}, {variant}, batch of {}", texts.len());
        let plan = planned_batch(model, &passes, most);
        let machine = Both::new(&plan.kernels, usize::MAX);
        let mut interpreter = Interpreter::of_batch(&plan, model, most).unwrap_or_else(|e| panic!("{e}"));
        for step in 0..texts[0].len() {
            let tokens: Vec<u32> = texts.iter().map(|text| text[step]).collect();
            interpreter
                .call(0, &tokens, &machine)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let logits = &interpreter.outputs(0)[0].1;
            let of_step: Vec<f64> = expected
                .iter()
                .flat_map(|e| &e.logits[step * vocab..(step + 1) * vocab])
                .copied()
                .collect();
            check(&format!("{what}: step {step}"), logits, &of_step);
        }
        for (i, (name, found)) in interpreter.outputs(0).iter().skip(1).enumerate() {
            let parts: Vec<f64> = expected.iter().flat_map(|e| &e.state[i].1).copied().collect();
            check(&format!("{what}: {name}"), found, &parts);
        }
    }
}

#[test]
fn random_models() {
    let mut random = Random(11);
    for seed in 0..8 {
        let generated = random::sizes(&mut random, 2, seed);
        let extras = Extras::draw(&mut random);
        let model = open_bytes(&random::file_with(&generated, extras, &mut random));
        // Two chunks at least.
        let length = random.range(2, 11);
        let tokens = random.tokens(length, generated.vocab);
        check_model(&format!("{generated:?}, {extras:?}"), &model, &tokens);
    }
}

/// Numbers of tokens on both sides of those at which products of matrices are computed in another way, and one of which some
/// blocks have several tiles.
#[test]
fn prompts_of_many_tokens() {
    // Inputs that no number of warps divides, and outputs that no tile does.
    let sizes = GenerateOptions {
        n_layers: 2,
        width: 96,
        head_size: 32,
        ffn: 160,
        vocab: 300,
        ranks: [32, 64, 32, 96],
        dtype: DType::BF16,
        seed: 5,
        layer0_value_gate: false,
        has_ln0: true,
        zero_share: None,
    };
    let model = open_bytes(&random::file(&sizes));
    for activations in Activations::ALL {
        let passes = Selection::all().with(activations);
        let plan = planned(&model, &passes);
        let all = &plan.kernels;
        assert!(all.iter().any(|k| k.to_string().contains(" mma.bf16 ")));
        let machine = Both::new(all, 0);
        for count in [8, 9, 32, 33, 64, 65, 577] {
            let tokens = Random(count as u64).tokens(count, sizes.vocab);
            // The evaluator takes its time, so it looks at the ends only, and at the first product of the longest prompt.
            machine.both.set(match count {
                577 => 3,
                8 | 9 | 65 => 30,
                _ => 0,
            });
            let mut prefill = Run::new(&plan, &model, &machine);
            let last = prefill.call(ProgramKind::Prefill, &tokens);
            let what = format!("{count} tokens, {activations}");
            let expected = evaluate(&model, &tokens);
            let exact = &expected.logits[(count - 1) * sizes.vocab..];
            if activations == Activations::F32 {
                check(&what, &last, exact);
                check_state(&what, &prefill, &expected);
            } else {
                let found = difference(&last, exact) / largest(exact);
                let bounds = TOLERANCE..ROUNDED;
                assert!(
                    bounds.contains(&found),
                    "{what} differ by {found:e} of the largest"
                );
            }
        }
    }
}

/// Products of many tokens with rounded activations, each by the tiles that it has, of matrices that lie in rows and in panels: what
/// the graph says of the very numbers.
#[test]
fn products_of_rounded_activations() {
    let graph = parse(
        "func @f(%tokens: i32[1,T]) -> (logits: %a, b: %b, rows: %c, panels: %d) {
           %table = param \"table\" : f32[7,96]
           %long = param \"long\" : f32[11,544]
           %residual = param \"residual\" : f32[9,136]
           %bias = param \"bias\" : f32[136]
           %w = param \"w\" : bf16[136,96]
           %v = param \"v\" : bf16[256,96]
           %u = param \"u\" : bf16[136,544]
           %t = param \"t\" : bf16[136,544]
           %x = embed %table, %tokens : f32[1,T,96]
           %y = embed %residual, %tokens : f32[1,T,136]
           %r = to_bf16 %x : bf16[1,T,96]
           %a, %b = linear_group %r, %w, %bias, %y, %r, %v {members=[bias+tanh+residual, relu2]} : f32[1,T,136], f32[1,T,256]
           %l = embed %long, %tokens : f32[1,T,544]
           %h = relu %l : f32[1,T,544]
           %s = to_bf16 %h : bf16[1,T,544]
           %c = linear_group %s, %u, %y {members=[residual]} : f32[1,T,136]
           %d = linear_group %s, %t, %y {members=[skip_zeros+residual]} : f32[1,T,136]
         }",
    );
    let graph = verify(graph.unwrap_or_else(|e| panic!("{e}"))).expect("a graph");
    for most in [64, 256, 600] {
        let shape = Shape {
            kind: ProgramKind::Score,
            graph: &graph,
            max_tokens: most,
        };
        let plan = plan(&[shape], &backends::all()[0].supports(&target()).expect("a GPU"))
            .unwrap_or_else(|e| panic!("{e}"));
        let machine = Both::new(&plan.kernels, 0);
        for count in [33, 65, 512, 513, 600].into_iter().filter(|&n| n <= most) {
            let values = Values::random(&graph, 1, count, count as u64);
            let expected = eval(&graph, &values.bindings()).expect("the graph evaluates");
            let tokens = values.inputs[0].1.values().iter().map(|&t| t as u32);
            let mut run = Interpreter::new(&plan, &values.params).unwrap_or_else(|e| panic!("{e}"));
            run.call(0, &tokens.collect::<Vec<_>>(), &machine)
                .unwrap_or_else(|e| panic!("{count} tokens: {e}"));
            for ((name, found), (_, expected)) in run.outputs(0).iter().zip(&expected) {
                check(
                    &format!("{name} of {count} of {most} tokens"),
                    found,
                    expected.values(),
                );
            }
        }
    }
}

/// Few and many zeros in the channel mix, and more of it than a block looks at in one go.
#[test]
fn activations_that_are_mostly_zero() {
    for (ffn, zero_share) in [(203, 0.95), (320, 0.7), (96, 0.1), (8484, 0.9)] {
        let model = open_bytes(&random::file(&GenerateOptions {
            vocab: 40,
            n_layers: 1,
            width: 128,
            ffn,
            zero_share: Some(zero_share),
            ..GenerateOptions::preset("0.1b").expect("a preset")
        }));
        let what = format!("{zero_share} of {ffn}");
        check_model(&what, &model, &[1, 39, 5]);
        check_batch(&what, &model, &[vec![3], vec![39]]);
    }
}

#[test]
fn batches_of_random_models() {
    let mut random = Random(12);
    for seed in 0..4 {
        let generated = random::sizes(&mut random, 2, seed);
        let extras = Extras::draw(&mut random);
        let model = open_bytes(&random::file_with(&generated, extras, &mut random));
        let length = random.range(1, 3);
        let texts: Vec<_> = (0..random.range(1, 9))
            .map(|_| random.tokens(length, generated.vocab))
            .collect();
        check_batch(&format!("{generated:?}, {extras:?}"), &model, &texts);
    }
}

#[test]
fn a_published_width_in_bf16() {
    let preset = GenerateOptions::preset("0.1b").expect("a preset");
    let model = open_bytes(&random::file(&GenerateOptions {
        vocab: 300,
        n_layers: 2,
        ..preset
    }));
    check_model("0.1b", &model, &[1, 299]);
}

#[test]
fn the_golden_of_the_demo() {
    const TOKENS: usize = 12;
    // The launches of a few tokens.
    const BOTH: usize = 1000;
    let golden = Golden::open("demo-golden.safetensors");
    let tokens = &golden.tokens("tokens")[..TOKENS];
    let model = fixtures::open("demo.safetensors");
    let expected = &golden.floats("logits_f64")[..TOKENS * model.config().vocab];
    for (variant, passes) in variants() {
        let plan = planned(&model, &passes);
        let machine = Both::new(&plan.kernels, BOTH);
        let mut decode = Run::new(&plan, &model, &machine);
        let steps = tokens
            .iter()
            .flat_map(|&t| decode.call(ProgramKind::Decode, &[t]));
        let found = difference(&steps.collect::<Vec<_>>(), expected);
        assert!(found <= LOGITS, "{variant}, decode: logits differ by {found:e}");
        let rows = Run::new(&plan, &model, &machine).call(ProgramKind::Score, tokens);
        let found = difference(&rows, expected);
        assert!(found <= LOGITS, "{variant}, score: logits differ by {found:e}");
    }
}

/// Rounding what matrix units multiply is to be seen in the logits, and hardly in how well the text is predicted.
#[test]
fn the_demo_with_rounded_activations() {
    const TOKENS: usize = 16;
    /// Largest difference of a logit, whose largest is about 20.
    const ROUNDED_LOGITS: f64 = 0.2;
    /// Largest difference of the mean bits of a token.
    const BITS: f64 = 0.01;
    let golden = Golden::open("demo-golden.safetensors");
    let tokens = &golden.tokens("tokens")[..TOKENS];
    let model = fixtures::open("demo.safetensors");
    let vocab = model.config().vocab;
    let expected = &golden.floats("logits_f64")[..TOKENS * vocab];
    let plan = planned(&model, &Selection::all().with(Activations::BF16));
    let machine = Both::new(&plan.kernels, 0);
    let rows = Run::new(&plan, &model, &machine).call(ProgramKind::Score, tokens);
    let found = difference(&rows, expected);
    assert!(
        (LOGITS..ROUNDED_LOGITS).contains(&found),
        "logits differ by {found:e}"
    );
    let bits = |rows: &[f64]| {
        let of_next = rows.chunks(vocab).zip(&tokens[1..]).map(|(row, &next)| {
            let mass: f64 = row.iter().map(|x| x.exp()).sum();
            mass.log2() - row[next as usize] * std::f64::consts::LOG2_E
        });
        of_next.sum::<f64>() / (TOKENS - 1) as f64
    };
    let (found, expected) = (bits(&rows), bits(expected));
    assert!(
        (found - expected).abs() <= BITS,
        "{found} bits of a token, expected {expected}"
    );
}
