//! States that advance together on a CPU: members join and leave in any mixture, and what becomes of one depends on
//! no other, to the last bit while there are few.

use rwkvc_abi::ProgramKind;
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_runtime::batch::{MemberError, Prompt};
use rwkvc_runtime::exec::SessionError;
use rwkvc_runtime::model::StepError;
use rwkvc_runtime::{Batch, Model, State, WorkspaceOptions};
use rwkvc_tests::cases::{Case, PROGRAMS, cases};
use rwkvc_tests::fixtures::{Golden, open, open_bytes};
use rwkvc_tests::numbers::{difference, largest};
use rwkvc_tests::random::{self, Random};
use rwkvc_tests::session::Session;

/// Largest difference of a logit from the float64 golden, as for the other programs.
const LOGITS: f64 = 2e-5;

/// Largest difference of a logit or a part of a state between a batch and decode, relative to the largest, or to 1.
const TWO_WAYS: f64 = 3e-6;

fn batch(model: &Model, threads: usize) -> Batch {
    let options = WorkspaceOptions { threads, pin: false };
    model.batch(&options).expect("memory and threads")
}

fn floats(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// A text that a batch reads, and what a batch of its own makes of it.
struct Alone {
    tokens: Vec<u32>,
    /// After each token.
    logits: Vec<Vec<f32>>,
    /// Before each token, and after the last.
    states: Vec<State>,
}

impl Alone {
    fn new(model: &Model, tokens: Vec<u32>) -> Self {
        let mut batch = batch(model, 1);
        let mut states = vec![model.new_state().expect("memory")];
        let mut logits = vec![];
        for (i, &token) in tokens.iter().enumerate() {
            batch.join(&states[i]).expect("there is room");
            logits.push(batch.step(&[token]).expect("a step").to_vec());
            states.push(batch.leave(0).expect("a member"));
        }
        let alone = Alone {
            tokens,
            logits,
            states,
        };
        alone.is_decode(model);
        alone
    }

    /// Decode is another schedule, so it has other bits, but close ones.
    fn is_decode(&self, model: &Model) {
        let mut session = Session::new(model, 1);
        let decoded = floats(&session.decode(&self.tokens));
        let most = |values: &[f64]| TWO_WAYS * largest(values).max(1.0);
        let found = difference(&self.logits.concat(), &decoded);
        assert!(found <= most(&decoded), "logits differ by {found:e}");
        let last = &self.states[self.tokens.len()];
        for slot in last.slots() {
            let values = |state: &State| state.slot(&slot.name).expect("a part").to_vec();
            let expected = floats(&values(&session.state()));
            let found = difference(&values(last), &expected);
            assert!(found <= most(&expected), "`{}` differs by {found:e}", slot.name);
        }
    }
}

/// Tokens of a text.
const LENGTH: usize = 6;

/// How many members come and go.
#[derive(Clone, Copy)]
struct Crowd {
    most: usize,
    steps: usize,
}

/// Members up to which products are added up in one order. More have another.
const FEW: usize = 16;

impl Crowd {
    /// Whether a member has what it has alone: all bits of it, or close to it in a crowd.
    fn is_same(self, found: &[f32], alone: &[f32]) -> bool {
        if self.most <= FEW {
            return found == alone;
        }
        let alone = floats(alone);
        difference(found, &alone) <= TWO_WAYS * largest(&alone).max(1.0)
    }
}

/// Members come and go at random, each with one of some texts.
fn mixture(what: &str, model: &Model, random: &mut Random, texts: Vec<Vec<u32>>, crowd: Crowd) {
    let Crowd { most, steps } = crowd;
    let texts: Vec<Alone> = texts.into_iter().map(|text| Alone::new(model, text)).collect();
    let mut batch = batch(model, 2);
    // Which text each member reads, and how far it is.
    let mut members: Vec<(usize, usize)> = vec![];
    for step in 0..steps {
        for _ in 0..random.range(0, most) {
            if members.len() < most {
                let (text, position) = (random.range(0, texts.len() - 1), random.range(0, LENGTH - 1));
                let state = &texts[text].states[position];
                assert_eq!(batch.join(state).expect("there is room"), members.len(), "{what}");
                members.push((text, position));
            }
        }
        let tokens: Vec<u32> = members.iter().map(|&(t, p)| texts[t].tokens[p]).collect();
        if !tokens.is_empty() {
            let rows = batch.step(&tokens).expect("a step").chunks(model.vocab());
            for (i, (row, (text, position))) in rows.zip(&mut members).enumerate() {
                assert!(
                    crowd.is_same(row, &texts[*text].logits[*position]),
                    "{what}, step {step}: the logits of member {i} of {} depend on others",
                    tokens.len()
                );
                *position += 1;
            }
        }
        // Those who are through leave, and some others.
        for i in (0..members.len()).rev() {
            let (text, position) = members[i];
            if position == LENGTH || random.range(0, 3) == 0 {
                let state = batch.leave(i).expect("a member");
                members.swap_remove(i);
                let expected = &texts[text].states[position];
                assert!(
                    crowd.is_same(state.values(), expected.values()),
                    "{what}, step {step}: the state of member {i} depends on others"
                );
            }
        }
        assert_eq!(batch.members(), members.len());
    }
}

#[test]
fn golden_logits_in_every_place() {
    let golden = Golden::open("demo-golden.safetensors");
    let tokens = &golden.tokens("tokens")[..24];
    let expected = golden.floats("logits_f64");
    let model = open("demo.safetensors");
    for case in cases() {
        let code = case.load(&model, &[ProgramKind::Batch]);
        let vocab = code.vocab();
        let mut batch = batch(&code, 2);
        // A member more at every step, each at another token of the text; those who are through leave.
        let mut positions: Vec<usize> = vec![];
        for _ in 0..tokens.len() + 4 {
            batch
                .join(&code.new_state().expect("memory"))
                .expect("there is room");
            positions.push(0);
            let now: Vec<u32> = positions.iter().map(|&p| tokens[p]).collect();
            let rows = batch.step(&now).expect("a step").chunks(vocab);
            for (row, position) in rows.zip(&mut positions) {
                let expected = &expected[*position * vocab..][..vocab];
                let found = difference(row, expected);
                assert!(found <= LOGITS, "{case}, token {position}: {found:e}");
                *position += 1;
            }
            if let Some(done) = positions.iter().position(|&p| p == tokens.len()) {
                batch.leave(done).expect("a member");
                positions.swap_remove(done);
            }
        }
    }
}

#[test]
fn members_do_not_see_each_other() {
    let mut random = Random(11);
    let demo = open("demo.safetensors");
    let tokens = Golden::open("demo-golden.safetensors").tokens("tokens");
    let texts: Vec<Vec<u32>> = tokens.chunks_exact(LENGTH).take(5).map(<[u32]>::to_vec).collect();
    for case in cases() {
        let code = case.load(&demo, &PROGRAMS);
        let crowd = Crowd { most: 9, steps: 20 };
        mixture(&case.to_string(), &code, &mut random, texts.clone(), crowd);
    }
    // As many as there may be: more than fit any tile.
    let code = cases()[0].load(&demo, &PROGRAMS);
    let crowd = Crowd { most: 64, steps: 10 };
    mixture("full", &code, &mut random, texts, crowd);
}

#[test]
fn models_of_any_shape() {
    let mut random = Random(3);
    for seed in 0..2 {
        let generated = random::sizes(&mut random, 3, seed);
        let extras = random::Extras::draw(&mut random);
        let model = open_bytes(&random::file_with(&generated, extras, &mut random));
        for case in cases() {
            let code = case.load(&model, &PROGRAMS);
            let what = format!("{generated:?}, {extras:?}, {case}");
            let texts = (0..5).map(|_| random.tokens(LENGTH, code.vocab())).collect();
            let crowd = Crowd {
                most: if seed == 0 { FEW } else { 19 },
                steps: 4,
            };
            mixture(&what, &code, &mut random, texts, crowd);
        }
    }
    // A channel mix that is mostly zero, in more than one panel.
    let model = open_bytes(&random::file(&GenerateOptions {
        vocab: 64,
        n_layers: 2,
        width: 576,
        ffn: 203,
        zero_share: Some(0.9),
        ..GenerateOptions::preset("0.1b").expect("a preset")
    }));
    let code = cases()[0].load(&model, &PROGRAMS);
    let texts = (0..5).map(|_| random.tokens(LENGTH, code.vocab())).collect();
    let crowd = Crowd { most: 19, steps: 6 };
    mixture("panels", &code, &mut random, texts, crowd);
}

#[test]
fn prompts_join_beside_members() {
    let demo = open("demo.safetensors");
    let code = cases()[0].load(&demo, &PROGRAMS);
    let vocab = code.vocab();
    let chunk = code
        .manifest()
        .program(ProgramKind::Prefill)
        .map(|p| p.max_tokens);
    let chunk = chunk.expect("prompts are read");
    let mut random = Random(5);
    let [text, prompt] = [LENGTH, 2 * chunk + 1].map(|n| random.tokens(n, vocab));
    let alone = Alone::new(&code, text);
    let mut expected = Session::new(&code, 1);
    let after_prompt = expected.prefill(&prompt);

    let mut batch = batch(&code, 2);
    batch.join(&alone.states[0]).expect("there is room");
    let mut prompt = Prompt::new(code.new_state().expect("memory"), prompt);
    let mut steps = 0;
    let joined = loop {
        let joined = batch.admit(&mut prompt).expect("a chunk");
        if let Some(joined) = joined {
            break joined;
        }
        let logits = batch.step(&[alone.tokens[steps]]).expect("a step");
        assert_eq!(logits, alone.logits[steps], "a prompt changes no member");
        steps += 1;
    };
    assert_eq!((steps, joined.member, prompt.unread().len()), (2, 1, 0));
    assert_eq!(joined.logits, after_prompt);
    assert!(batch.admit(&mut prompt).is_err(), "it has joined");
    let left = batch.leave(1).expect("a member");
    assert_eq!(left.values(), expected.state().values());
    assert_eq!(
        batch.leave(0).expect("a member").values(),
        alone.states[2].values()
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let case = Case::fused(rwkvc::backends::all()[0]);
    let code = case.load(&open("tracker.pth"), &PROGRAMS);
    let mut batch = batch(&code, 1);
    assert!(matches!(
        batch.step(&[]),
        Err(SessionError::Step(StepError::NoTokens))
    ));
    let state = code.new_state().expect("memory");
    for i in 0..batch.capacity() {
        assert_eq!(batch.join(&state).expect("there is room"), i);
    }
    let error = batch.join(&state).expect_err("no room").to_string();
    assert_eq!(error, "the batch is full: it was compiled for 64 states");
    let mut prompt = Prompt::new(code.new_state().expect("memory"), vec![1]);
    let error = batch.admit(&mut prompt).expect_err("no room").to_string();
    assert_eq!(error, "the batch is full: it was compiled for 64 states");
    assert_eq!(prompt.unread(), [1], "nothing was read");
    let error = batch.step(&[1]).expect_err("more members").to_string();
    assert_eq!(error, "1 tokens for a batch of 64: each member takes one");
    let error = batch.leave(64);
    assert!(matches!(
        error,
        Err(SessionError::Members(MemberError::Unknown {
            slot: 64,
            members: 64
        }))
    ));
    let mut tokens = [0; 64];
    tokens[7] = 1 << 20;
    let error = batch.step(&tokens).expect_err("no such token").to_string();
    assert!(error.starts_with("token 1048576 at position 7"), "{error}");
    for _ in 0..64 {
        let left = batch.leave(0).expect("a member");
        assert_eq!(left.values(), state.values(), "nothing was done");
    }
    let other = case.load(&open("demo.safetensors"), &[ProgramKind::Decode]);
    assert!(
        batch.join(&other.new_state().expect("memory")).is_err(),
        "a state of another model"
    );
    let error = other.batch(&WorkspaceOptions::default());
    let error = error.expect_err("no such program").to_string();
    assert_eq!(error, "the model was compiled without a batch program");
}
