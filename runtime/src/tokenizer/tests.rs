use std::io::Write;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// What the official package gives for a text.
#[derive(Deserialize)]
struct Golden {
    text: String,
    tokens: Vec<u32>,
}

#[test]
fn world_equals_the_official_package() {
    let text = include_str!("../../../tests/fixtures/tokenizer-golden.json");
    let cases: Vec<Golden> = serde_json::from_str(text).unwrap();
    assert!(cases.len() >= 50);
    let tokenizer = Tokenizer::world();
    for Golden { text, tokens } in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), tokens, "{text:?}");
        assert_eq!(tokenizer.decode(&tokens).unwrap(), text.as_bytes());
    }
}

#[test]
fn world_has_every_token_and_byte() {
    let tokenizer = Tokenizer::world();
    assert_eq!((tokenizer.n_tokens(), tokenizer.highest_id()), (65_529, 65_529));
    for id in 1..=65_529 {
        let token = tokenizer.token(id).unwrap();
        assert_eq!(tokenizer.encode_bytes(token).unwrap(), [id]);
    }
    for byte in 0..=u8::MAX {
        assert_eq!(tokenizer.encode_bytes(&[byte]).unwrap(), [u32::from(byte) + 1]);
    }
    assert_eq!(tokenizer.token(END_OF_TEXT), Some(&b""[..]));
    assert_eq!(tokenizer.token(65_530), None);
}

#[test]
fn bytes_are_one_token_each() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.encode("aé").unwrap(), [98, 196, 170]);
    assert_eq!(tokenizer.decode(&[98, 0, 256]).unwrap(), b"a\xff");
    assert!(matches!(
        tokenizer.decode(&[257]),
        Err(TokenizerError::UnknownToken {
            id: 257,
            highest: 256
        })
    ));
}

#[test]
fn the_size_of_a_model_chooses() {
    for rows in [65_530, 65_536, 66_560] {
        assert_eq!(Tokenizer::for_vocab(rows).unwrap().n_tokens(), 65_529);
    }
    for rows in [257, 320, 1024] {
        assert_eq!(Tokenizer::for_vocab(rows).unwrap().n_tokens(), 256);
    }
    for rows in [0, 96, 256, 1025, 50_304, 65_529, 66_561] {
        assert!(
            matches!(Tokenizer::for_vocab(rows), Err(TokenizerError::NoBuiltIn { rows: r }) if r == rows)
        );
    }
}

#[test]
fn wrong_lines_are_named() {
    let cases = [
        ("", "vocabulary is empty, expected lines of `id literal length`"),
        (
            "1 'a' 1\n\n",
            "vocabulary line 2: expected `id literal length`, separated by single spaces",
        ),
        (
            "1 'a'",
            "vocabulary line 1: expected `id literal length`, separated by single spaces",
        ),
        (
            "0 'a' 1",
            "vocabulary line 1: the id is not a number from 1 to 1048575 (0 is the end of text)",
        ),
        (
            "+1 'a' 1",
            "vocabulary line 1: the id is not a number from 1 to 1048575 (0 is the end of text)",
        ),
        (
            "1048576 'a' 1",
            "vocabulary line 1: the id is not a number from 1 to 1048575 (0 is the end of text)",
        ),
        ("1 'a' one", "vocabulary line 1: the length is not a number"),
        ("1 'a' ", "vocabulary line 1: the length is not a number"),
        (
            "1 'é' 1",
            "vocabulary line 1: the token has 2 bytes, but the line says 1",
        ),
        ("1 '' 0", "vocabulary line 1: the token has no bytes"),
        ("1 'a' 1\n1 'b' 1", "vocabulary line 2: id 1 occurs twice"),
        (
            "7 'a' 1\n8 b'a' 1",
            "vocabulary line 2: the same token has id 7 already",
        ),
        (
            "1 a 1",
            "vocabulary line 1: the literal is not of the form '…', \"…\", b'…' or b\"…\"",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(
            Tokenizer::parse(text).unwrap_err().to_string(),
            expected,
            "{text:?}"
        );
    }
}

#[test]
fn a_vocabulary_may_have_gaps() {
    let tokenizer = Tokenizer::parse("9 'ab' 2\r\n4 'a' 1\r\n").unwrap();
    assert_eq!(tokenizer.encode("aab").unwrap(), [4, 9]);
    assert_eq!((tokenizer.highest_id(), tokenizer.token(5)), (9, None));
    let error = tokenizer.encode("ab b").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no token of the vocabulary fits the text at byte 2, which is 0x20"
    );
}

#[test]
fn files_are_read_and_bounded() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"1 'a' 1\n").unwrap();
    assert_eq!(Tokenizer::from_file(file.path()).unwrap().n_tokens(), 1);
    file.write_all(b"2 '\xff' 1\n").unwrap();
    assert!(matches!(
        Tokenizer::from_file(file.path()),
        Err(TokenizerError::Read { .. })
    ));
    file.as_file().set_len(1 << 40).unwrap();
    assert!(matches!(
        Tokenizer::from_file(file.path()),
        Err(TokenizerError::TooLarge)
    ));
    assert!(matches!(
        Tokenizer::from_file("no/such/file"),
        Err(TokenizerError::Read { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_survive(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for tokenizer in [Tokenizer::world(), Tokenizer::bytes()] {
            let tokens = tokenizer.encode_bytes(&bytes).unwrap();
            prop_assert_eq!(tokenizer.decode(&tokens).unwrap(), &bytes[..]);
        }
    }

    #[test]
    fn any_text_survives(text in ".{0,100}") {
        let tokenizer = Tokenizer::world();
        let tokens = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokens).unwrap(), text.as_bytes());
    }

    #[test]
    fn any_vocabulary_is_parsed_or_refused(text in r#"([0-9]{1,3} b?['"]([a-c]|\\x[0-9a-f]{1,2}|\\.|é){0,3}['"] [0-4]\n){0,4}.{0,8}"#) {
        if let Ok(tokenizer) = Tokenizer::parse(&text) {
            for id in 1..=tokenizer.highest_id() {
                if let Some(token) = tokenizer.token(id) {
                    prop_assert_eq!(tokenizer.encode_bytes(token).unwrap(), vec![id]);
                }
            }
        }
    }
}
