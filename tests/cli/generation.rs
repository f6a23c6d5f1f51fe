//! `rwkvc run`: text, tokens, states, sampling.

use serde_json::Value;

use crate::harness::*;

/// What the official package goes on with after `And it came to pass`, most likely token by most likely token.
const PROMPT: &str = "And it came to pass";
const GREEDY: &str = ", that the LORD shall be a stranger of the LORD.\nAnd the LORD said unto them, The LORD shall be a \
    stranger of the LORD, and the LORD shall be a stranger of the LORD.\nAnd the LORD shall be a stranger of the LORD, \
    and the LORD shall be a stranger of the LORD.\nAnd the LORD shall be a stranger of the LO";

/// `rwkvc run`, greedy, as JSON.
fn run(model: &str, options: &[&str]) -> Value {
    json([&["run", model, "--temperature", "0", "--threads", "1"], options].concat())
}

/// The tokens of some bytes in the vocabulary of the demo model.
fn bytes(text: &str) -> Vec<u64> {
    text.bytes().map(|b| u64::from(b) + 1).collect()
}

#[test]
fn greedy_text_is_the_official_one() {
    let result = run(artifact(), &["--prompt", PROMPT, "--max-tokens", "300"]);
    assert_eq!(keys(&result), ["finished", "text", "timings", "tokens"]);
    assert_eq!(result["text"], GREEDY);
    assert_eq!(ids(&result["tokens"]), bytes(GREEDY));
    assert_eq!(result["finished"], "max_tokens");
    let timings = &result["timings"];
    let expected = [
        "decode_s",
        "decode_tokens_per_s",
        "load_s",
        "new_tokens",
        "prompt_s",
        "prompt_tokens",
    ];
    assert_eq!(keys(timings), expected);
    // The text's bytes behind token 0.
    assert_eq!(timings["prompt_tokens"], PROMPT.len() + 1);
    assert_eq!(timings["new_tokens"], 300);
}

#[test]
fn the_prompt_comes_from_anywhere() {
    let folder = Folder::new();
    let file = folder.file("prompt.txt", PROMPT);
    let start = list(&[&[0], &bytes(PROMPT)[..]].concat());
    for prompt in [["--prompt-file", &file], ["--tokens", &start]] {
        let result = run(artifact(), &[&prompt[..], &["--max-tokens", "12"]].concat());
        assert_eq!(result["text"], &GREEDY[..12], "{prompt:?}");
        assert_eq!(result["timings"]["prompt_tokens"], PROMPT.len() + 1, "{prompt:?}");
    }
    let args = [
        "run",
        artifact(),
        "-",
        "--max-tokens",
        "12",
        "--temperature",
        "0",
        "--threads",
        "1",
    ];
    // As text, the result is followed by the end of its line.
    assert_eq!(
        succeeds_with_input(args, PROMPT.as_bytes()),
        GREEDY[..12].to_string() + "\n"
    );
}

#[test]
fn a_checkpoint_gives_what_its_artifact_gives() {
    let options = ["--prompt", PROMPT, "--max-tokens", "30"];
    let compiled = run(artifact(), &options);
    let folder = run(demo(), &[&options[..], &["--backend", "cranelift"]].concat());
    assert_eq!(compiled["tokens"], folder["tokens"]);
    let slow = run(
        demo(),
        &["--prompt", PROMPT, "--max-tokens", "3", "--backend", "evaluator"],
    );
    assert_eq!(ids(&compiled["tokens"])[..3], ids(&slow["tokens"]));
}

#[test]
fn a_saved_state_continues_as_if_never_stopped() {
    let folder = Folder::new();
    let state = folder.join("after.state");
    let start = [&[0], &bytes(PROMPT)[..]].concat();
    let whole = run(artifact(), &["--tokens", &list(&start), "--max-tokens", "20"]);
    let whole = ids(&whole["tokens"]);

    // Split within the prompt.
    let (head, tail) = (list(&start[..7]), list(&start[7..]));
    let first = run(
        artifact(),
        &["--tokens", &head, "--max-tokens", "0", "--state-out", &state],
    );
    assert!(ids(&first["tokens"]).is_empty());
    let second = run(
        artifact(),
        &["--tokens", &tail, "--max-tokens", "20", "--state-in", &state],
    );
    assert_eq!(ids(&second["tokens"]), whole);

    // Split within the new tokens: the state has seen all that were printed. The prompt as text gets no second start.
    run(
        artifact(),
        &[
            "--tokens",
            &list(&start),
            "--max-tokens",
            "8",
            "--state-out",
            &state,
        ],
    );
    let next = &GREEDY[8..9];
    let third = run(
        artifact(),
        &["--prompt", next, "--max-tokens", "11", "--state-in", &state],
    );
    assert_eq!(third["timings"]["prompt_tokens"], 1);
    assert_eq!(ids(&third["tokens"]), whole[9..]);
    assert_eq!(folder.names(), ["after.state"]);
}

#[test]
fn an_empty_prompt_is_the_start_of_a_text() {
    let result = run(artifact(), &["--prompt", "", "--max-tokens", "4"]);
    assert_eq!(result["timings"]["prompt_tokens"], 1);
    let same = run(artifact(), &["--tokens", "0", "--max-tokens", "4"]);
    assert_eq!(result["tokens"], same["tokens"]);
    fails(
        ["run", artifact(), "--prompt", "", "--no-bos"],
        &["the prompt is empty"],
    );
}

#[test]
fn seeds_repeat_and_differ() {
    let sample = |seed: &str| {
        let args = [
            "run",
            artifact(),
            "--prompt",
            PROMPT,
            "--max-tokens",
            "40",
            "--threads",
            "1",
        ];
        ids(&json([&args[..], &["--seed", seed, "--top-p", "1"]].concat())["tokens"])
    };
    assert_eq!(sample("7"), sample("7"));
    assert_ne!(sample("7"), sample("8"));
}

#[test]
fn a_stop_string_ends_the_text_before_itself() {
    let result = run(
        artifact(),
        &["--prompt", PROMPT, "--max-tokens", "60", "--stop", " stranger"],
    );
    assert_eq!(result["text"], ", that the LORD shall be a");
    assert_eq!(result["finished"], "stop");
}

#[test]
fn streamed_text_is_whole_utf8() {
    // A model of random bytes: most of them are no characters by themselves.
    let args = [
        "run",
        tiny(),
        "--prompt",
        "ä",
        "--max-tokens",
        "200",
        "--backend",
        "cranelift",
        "--threads",
        "1",
    ];
    let args = [&args[..], &["--temperature", "2", "--top-p", "1", "--seed", "3"]].concat();
    let streamed = succeeds(&args);
    let result = json(&args);
    assert_eq!(streamed.strip_suffix('\n'), result["text"].as_str());
    // Rows beyond the bytes are no text at all, as is the byte 255.
    let byte = |id: &u64| u8::try_from(id - 1).unwrap_or(255);
    let raw: Vec<u8> = ids(&result["tokens"]).iter().map(byte).collect();
    assert_eq!(result["text"], String::from_utf8_lossy(&raw).as_ref());
}
