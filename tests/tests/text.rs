//! The demo model writes and reads what it wrote and read in the official package.

use rwkvc::backends;
use rwkvc_abi::ProgramKind;
use rwkvc_runtime::generate::{GenerateOptions, Generator};
use rwkvc_runtime::sampler::SamplerOptions;
use rwkvc_runtime::tokenizer::{END_OF_TEXT, Tokenizer};
use rwkvc_tests::cases::{Case, cases};
use rwkvc_tests::fixtures::{npy, open, read};
use rwkvc_tests::numbers::{difference, surprise};
use rwkvc_tests::session::Session;

/// Largest difference in nats of what a byte costs.
const SURPRISE: f64 = 1e-4;

/// Prompts, and the 300 bytes that the official package continues them with. On the way, the two highest logits are
/// never closer than 0.012.
const GREEDY: [(&str, &str); 2] = [
    (
        "And it came to pass",
        ", that the LORD shall be a stranger of the LORD.\nAnd the LORD said unto them, The LORD shall be a stranger of \
         the LORD, and the LORD shall be a stranger of the LORD.\nAnd the LORD shall be a stranger of the LORD, and the \
         LORD shall be a stranger of the LORD.\nAnd the LORD shall be a stranger of the LO",
    ),
    (
        "Genesis 1\n\nIn the beginning ",
        "of the LORD the LORD thy God will be the word of the LORD thy God in the mountains of the LORD.\nAnd the LORD \
         said unto them, The LORD shall be a stranger of the LORD, and the LORD shall be a stranger of the LORD.\nAnd \
         the LORD shall be a stranger of the LORD, and the LORD shall be a stranger of the L",
    ),
];

fn tokens(tokenizer: &Tokenizer, text: &[u8]) -> Vec<u32> {
    let text = tokenizer.encode_bytes(text).expect("every byte is a token");
    std::iter::once(END_OF_TEXT).chain(text).collect()
}

#[test]
fn greedy_text_is_the_official_one() {
    let model = open("demo.safetensors");
    for case in cases() {
        let code = case.load(&model, &[ProgramKind::Decode, ProgramKind::Prefill]);
        let tokenizer = Tokenizer::for_vocab(code.vocab()).expect("a vocabulary");
        for (prompt, expected) in GREEDY {
            let mut session = Session::new(&code, 1).0;
            let options = GenerateOptions {
                sampling: SamplerOptions::greedy(),
                max_tokens: 300,
                ..GenerateOptions::default()
            };
            let tokens = tokenizer
                .prompt(prompt.as_bytes())
                .expect("every byte is a token");
            let generator = Generator::new(&mut session, Some(tokenizer.clone()), &tokens, options);
            let pieces = generator
                .expect("a prompt")
                .map(|piece| piece.expect("a piece").text);
            assert_eq!(pieces.collect::<String>(), expected, "{case}: {prompt}");
        }
    }
}

/// What each of the first bytes of the held-out text costs, in nats.
fn surprises(case: &Case, length: usize) -> Vec<f64> {
    let code = case.load(&open("demo.safetensors"), &[ProgramKind::Score]);
    let tokenizer = Tokenizer::for_vocab(code.vocab()).expect("a vocabulary");
    let tokens = tokens(&tokenizer, &read("heldout.txt")[..length]);
    let mut all = vec![];
    let mut each = |position: usize, row: &[f32]| all.push(surprise(row, tokens[position + 1]));
    let scored = Session::new(&code, 1).0.score(&tokens[..length], &mut each);
    scored.expect("a run");
    all
}

#[test]
fn the_held_out_text_costs_what_it_costs_in_the_official_package() {
    let expected = npy("heldout-nll.npy");
    let found = surprises(&Case::fused(backends::all()[0]), expected.len());
    let bits = found.iter().sum::<f64>() / std::f64::consts::LN_2 / found.len() as f64;
    assert_eq!(format!("{bits:.4}"), "1.4225");
    let most = difference(&found, &expected);
    assert!(most <= SURPRISE, "a byte differs by {most:e} nats");
    for case in cases() {
        let found = surprises(&case, 3000);
        let most = difference(&found, &expected[..found.len()]);
        assert!(most <= SURPRISE, "{case}: a byte differs by {most:e} nats");
    }
}
