//! Files that were written, damaged, or made for something else.

use serde_json::json;

use super::*;

fn subject() -> Subject {
    Subject {
        machine: Machine::here(),
        model: "0123".into(),
        backend: "llvm".into(),
        target: "cpu:x86-64-v3".into(),
        weights: "stored".into(),
        compiled: false,
    }
}

fn outcome() -> Outcome {
    let mut tuning = Tuning::of(8, 16);
    tuning.set("streams", "8").expect("a value");
    tuning.set("square", "4x6").expect("a value");
    let choice = Choice {
        threads: 3,
        tuning: Some(tuning),
    };
    Outcome {
        start: choice,
        best: choice,
        trials: vec![],
        untried: vec![],
        changes: vec![],
    }
}

/// Writes the file that `change` makes of a good one, and reads it.
fn with(change: impl FnOnce(&mut Value)) -> Result<Choice, String> {
    let mut value: Value =
        serde_json::from_str(&text(subject(), &outcome()).expect("a text")).expect("its own text");
    change(&mut value);
    bytes(value.to_string().as_bytes())
}

fn bytes(bytes: &[u8]) -> Result<Choice, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.tuning.json");
    std::fs::write(&path, bytes).expect("a file");
    read(&path, &subject()).map_err(|error| {
        let text = error.to_string();
        assert!(text.contains(&*path.to_string_lossy()), "{text}");
        text
    })
}

#[test]
fn what_was_written_is_read() {
    assert_eq!(with(|_| ()), Ok(outcome().best));
    let written = text(subject(), &outcome()).expect("a text");
    assert!(written.contains("\"streams\": 8"), "{written}");
    assert!(written.contains("\"square\": \"4x6\""), "{written}");
}

#[test]
fn the_file_lies_beside_the_model() {
    for (model, file) in [
        ("model.pth", "model.pth.tuning.json"),
        ("/a/folder/", "/a/folder.tuning.json"),
        ("..", "...tuning.json"),
    ] {
        assert_eq!(path(Path::new(model)), Path::new(file));
    }
}

/// What is said of a file that was changed so.
type Case = (&'static str, fn(&mut Value));

#[test]
fn damage_is_named() {
    let cases: [Case; 15] = [
        ("unknown field `colour`", |v| v["colour"] = json!("red")),
        ("unknown field `colour`", |v| v["subject"]["colour"] = json!(1)),
        ("unknown field `rivers`, expected streams", |v| {
            v["schedule"]["rivers"] = json!(1)
        }),
        ("`streams` is 3, expected 1, 2, 4, 8", |v| {
            v["schedule"]["streams"] = json!(3)
        }),
        ("`streams` is -4", |v| v["schedule"]["streams"] = json!(-4)),
        ("`streams` is 1e+300", |v| v["schedule"]["streams"] = json!(1e300)),
        ("`streams` is [4]", |v| v["schedule"]["streams"] = json!([4])),
        ("`square` is 100x100", |v| {
            v["schedule"]["square"] = json!("100x100")
        }),
        ("`chunk` is missing", |v| {
            v["schedule"].as_object_mut().expect("fields").remove("chunk");
        }),
        ("`threads` is 0, expected 1 to 1024", |v| v["threads"] = json!(0)),
        ("`threads` is 1025", |v| v["threads"] = json!(1025)),
        ("invalid value: integer `-1`", |v| v["threads"] = json!(-1)),
        ("`schedule` is missing", |v| v["schedule"] = Value::Null),
        ("has a `schedule`", |v| v["subject"]["compiled"] = json!(true)),
        ("missing field `measured`", |v| {
            v.as_object_mut().expect("fields").remove("measured");
        }),
    ];
    for (expected, change) in cases {
        let error = with(change).expect_err(expected);
        assert!(
            error.contains("is damaged") && error.contains(expected),
            "expected `{expected}`: {error}"
        );
    }
    let whole = text(subject(), &outcome()).expect("a text").into_bytes();
    for length in 0..whole.len() - 1 {
        let error = bytes(&whole[..length]).expect_err("a part of the file");
        assert!(error.contains("is damaged"), "{error}");
    }
    assert!(bytes(b"\xff\xfe\0").is_err());
    let deep = "[".repeat(500_000);
    assert!(bytes(deep.as_bytes()).is_err());
    let long = [&whole[..], &vec![b' '; MOST_BYTES as usize]].concat();
    assert!(
        bytes(&long)
            .expect_err("a long file")
            .contains("more than 1048576 bytes")
    );
}

#[test]
fn what_it_was_measured_for_is_named() {
    let cases: [Case; 9] = [
        ("by rwkvc 9.9.9, and this is rwkvc ", |v| {
            v["producer"] = json!("rwkvc 9.9.9")
        }),
        // A later version may say other things.
        ("by rwkvc 9.9.9", |v| {
            *v = json!({ "format": 2, "producer": "rwkvc 9.9.9", "colour": "red" });
        }),
        ("on `Z80`", |v| v["subject"]["machine"]["cpu"] = json!("Z80")),
        ("with 4096 cores", |v| {
            v["subject"]["machine"]["cores"] = json!(4096)
        }),
        ("for another model", |v| v["subject"]["model"] = json!("4567")),
        ("for the backend `cranelift`, and this is `llvm`", |v| {
            v["subject"]["backend"] = json!("cranelift")
        }),
        ("for the target `cpu:x86-64-v4`", |v| {
            v["subject"]["target"] = json!("cpu:x86-64-v4")
        }),
        ("for weights `int8`, and this is `stored`", |v| {
            v["subject"]["weights"] = json!("int8")
        }),
        ("for a file that is compiled already", |v| {
            v["subject"]["compiled"] = json!(true);
            v["schedule"] = Value::Null;
        }),
    ];
    for (expected, change) in cases {
        let error = with(change).expect_err(expected);
        assert!(
            error.contains(&format!("was measured {expected}")),
            "expected `{expected}`: {error}"
        );
    }
}
