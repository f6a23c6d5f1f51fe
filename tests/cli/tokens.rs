//! `rwkvc tokenize`

use serde_json::Value;

use crate::harness::*;

/// Texts with the tokens that the official package gives.
fn golden() -> Vec<(String, Vec<u64>)> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/tokenizer-golden.json"
    );
    let entries: Vec<Value> =
        serde_json::from_slice(&std::fs::read(path).expect("the fixture")).expect("JSON");
    let text = |e: &Value| e["text"].as_str().expect("a text").to_string();
    entries.iter().map(|e| (text(e), ids(&e["tokens"]))).collect()
}

#[test]
fn the_world_vocabulary_is_the_official_one() {
    for (text, tokens) in golden() {
        let printed = succeeds_with_input(["tokenize", "--world", "-", "--format", "json"], text.as_bytes());
        let result = document(&printed);
        assert_eq!(keys(&result), ["tokens"]);
        assert_eq!(ids(&result["tokens"]), tokens, "{text:?}");
    }
}

#[test]
fn tokens_turn_back_into_their_text() {
    // One call for all: the tokens one after another are the texts one after another.
    let (texts, tokens): (Vec<_>, Vec<_>) = golden().into_iter().unzip();
    let all = list(&tokens.concat());
    let result = json(["tokenize", "--world", "--decode", &all]);
    assert_eq!(keys(&result), ["text", "tokens"]);
    assert_eq!(result["text"], texts.concat());
    assert_eq!(
        succeeds(["tokenize", "--world", "--decode", &all]),
        texts.concat()
    );
}

#[test]
fn the_text_comes_from_anywhere() {
    let folder = Folder::new();
    let file = folder.file("text.txt", "Hello world");
    let expected = "33155,40213\n";
    assert_eq!(
        succeeds(["tokenize", "--world", "--text", "Hello world"]),
        expected
    );
    assert_eq!(succeeds(["tokenize", "--world", "--file", &file]), expected);
    assert_eq!(
        succeeds_with_input(["tokenize", "--world", "-"], b"Hello world"),
        expected
    );
}

#[test]
fn a_model_chooses_its_vocabulary() {
    for model in [demo(), artifact()] {
        assert_eq!(succeeds(["tokenize", model, "--text", "Hi"]), "73,106\n");
        assert_eq!(
            succeeds_with_input(["tokenize", model, "-"], "é".as_bytes()),
            "196,170\n"
        );
        assert_eq!(succeeds(["tokenize", model, "--decode", "73,106"]), "Hi");
    }
}

#[test]
fn a_vocabulary_file_is_used() {
    let folder = Folder::new();
    let vocab = folder.file("vocab.txt", "1 'a' 1\n2 'b' 1\n3 'ab' 2\n");
    let tokenize = |text| ["tokenize", "--vocab", &vocab, "--text", text];
    assert_eq!(succeeds(tokenize("aabb")), "1,3,2\n");
    folder.refuses(tokenize("abc"), &["at byte 2", "0x63"]);
}
