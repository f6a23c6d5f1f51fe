//! Models with quantised weights: against the evaluator with the same weights, and how much worse they are than the stored
//! ones.

use std::f64::consts::LN_2;
use std::sync::Arc;

use rwkvc::backends;
use rwkvc::reference::Reference;
use rwkvc_abi::ProgramKind;
use rwkvc_frontend::checkpoint::{BlockFormat, Storage};
use rwkvc_frontend::model::Model;
use rwkvc_frontend::write::{Metadata, OutputLayout, write};
use rwkvc_passes::quantize::Formats;
use rwkvc_passes::settings::Settings;
use rwkvc_runtime::exec::Device;
use rwkvc_runtime::tokenizer::Tokenizer;
use rwkvc_tests::cases::{Case, PROGRAMS};
use rwkvc_tests::fixtures::{self, Golden, open, open_bytes};
use rwkvc_tests::numbers::difference;
use rwkvc_tests::session::Session;

/// Largest difference of a logit from the evaluator after one token.
const LOGITS: f64 = 2e-5;

/// The same where some activation lay so near to the middle between two codes that it got the other one. It moves others, and in
/// the end the difference is of the size of the activations' rounding. Offsets of `int8` that are wrong by one code show as 1.
const ROUNDED_OTHERWISE: f64 = 0.1;

/// The share of the tokens for which that may happen.
const SELDOM: f64 = 0.15;

fn formats(text: &str) -> Formats {
    text.parse().expect(text)
}

#[test]
fn logits_are_those_of_the_evaluator() {
    let model = open("demo.safetensors");
    let tokens = &Golden::open("demo-golden.safetensors").tokens("tokens")[..40];
    for text in ["int8", "int4", "int4,head=stored,ffn=int8,lora=stored,emb=int4"] {
        let reference = |tokens: &[u32]| {
            let mut reference =
                Reference::new(model.clone(), &Settings::default().with(formats(text))).expect("a reference");
            reference.prefill(tokens).expect("logits").to_vec()
        };
        let single: Vec<Vec<f32>> = tokens.iter().map(|&t| reference(&[t])).collect();
        let last = reference(tokens);
        for backend in backends::all() {
            let mut case = Case::fused(backend);
            case.passes = case.passes.with(formats(text));
            let code = case.load(&model, &PROGRAMS);
            for (program, run) in [
                (
                    "decode",
                    &(|t: &[u32]| Session::new(&code, 1).decode(t)) as &dyn Fn(&[u32]) -> Vec<f32>,
                ),
                ("score", &|t: &[u32]| Session::new(&code, 2).score(t)),
                ("prefill", &|t: &[u32]| Session::new(&code, 1).prefill(t)),
            ] {
                let name = format!("{case}, {text}, {program}");
                let mut otherwise = 0;
                for (token, expected) in tokens.iter().zip(&single) {
                    let difference = difference(&run(&[*token]), expected);
                    otherwise += usize::from(difference > LOGITS);
                    assert!(
                        difference <= ROUNDED_OTHERWISE,
                        "{name}: logits differ by {difference:e}"
                    );
                }
                let most = SELDOM * tokens.len() as f64;
                assert!(
                    otherwise as f64 <= most,
                    "{name}: logits of {otherwise} tokens differ"
                );
                let found = run(tokens);
                let difference = difference(&found[found.len() - last.len()..], &last);
                assert!(
                    difference <= ROUNDED_OTHERWISE,
                    "{name}: logits differ by {difference:e}"
                );
            }
        }
    }
}

/// Bits that a model needs for a byte of a text that it has not seen.
fn bits_per_byte(text: &str, model: &Arc<Model>, formats: Formats) -> f64 {
    let mut case = Case::fused(backends::all()[0]);
    case.passes = case.passes.with(formats);
    let code = case.load(model, &[ProgramKind::Score]);
    let tokenizer = Tokenizer::for_vocab(code.vocab()).expect("a tokenizer");
    let mut tokens = vec![0];
    tokens.extend(tokenizer.encode(text).expect("tokens"));
    let inputs = &tokens[..tokens.len() - 1];
    let rows = Session::new(&code, 2).score(inputs);
    let bits = rows
        .chunks_exact(code.vocab())
        .zip(&tokens[1..])
        .map(|(row, &next)| {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
            (sum.ln() - f64::from(row[next as usize] - most)) / LN_2
        });
    bits.sum::<f64>() / text.len() as f64
}

#[test]
fn a_text_is_predicted_nearly_as_well() {
    let text = String::from_utf8(fixtures::read("heldout.txt")).expect("a text");
    let model = open("demo.safetensors");
    let stored = bits_per_byte(&text, &model, Formats::default());
    for (weights, most) in [("int8", 0.001), ("int4", 0.01)] {
        let worse = bits_per_byte(&text, &model, formats(weights)) / stored - 1.0;
        assert!(worse <= most, "{weights}: {worse}");
    }
    // The blocks of a GGUF file, as they are.
    let layout = OutputLayout::Gguf(Metadata {
        name: "blocks",
        token: None,
    });
    let mut file = vec![];
    let q8_0 = Storage::Blocks(BlockFormat::Q8_0);
    write(&*model, &layout, Some(q8_0), &mut file, &mut |_, _| {}).expect("a model that fits");
    let blocks = open_bytes(&file);
    let groups: Vec<_> = blocks
        .groups()
        .map(|(name, format)| (name.to_owned(), format))
        .collect();
    assert!(groups.iter().any(|(name, _)| name == "head.weight"), "{groups:?}");
    let worse = bits_per_byte(&text, &blocks, Formats::as_stored(groups)) / stored - 1.0;
    assert!(worse.abs() <= 0.001, "q8_0: {worse}");
}
