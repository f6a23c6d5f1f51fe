//! Bytes to complete characters.

/// Turns bytes that arrive in pieces into text, character by character.
///
/// All text together equals [`String::from_utf8_lossy`] of all bytes together, however they are cut: a character is
/// held back until its last byte is there, and bytes that are not UTF-8 become U+FFFD.
///
/// ```
/// use rwkvc_runtime::text::Decoder;
///
/// let mut decoder = Decoder::new();
/// assert_eq!(decoder.push(b"caf\xc3"), "caf");
/// assert_eq!(decoder.push(b"\xa9!"), "é!");
/// assert_eq!(decoder.push(b"\xe6\x97"), "");
/// assert_eq!(decoder.finish(), "\u{fffd}");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// The bytes of an incomplete character; then, during a push, the new bytes too.
    pending: Vec<u8>,
    text: String,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and gives the text that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.pending.extend_from_slice(bytes);
        self.text.clear();
        let mut rest = &self.pending[..];
        let incomplete = loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    break 0;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.text
                .push_str(std::str::from_utf8(valid).expect("UTF-8 up to the first error"));
            match error.error_len() {
                Some(length) => {
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[length..];
                }
                None => break after.len(),
            }
        };
        self.pending.drain(..self.pending.len() - incomplete);
        &self.text
    }

    /// Ends the text: an incomplete character becomes U+FFFD. The decoder is then as new.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.text.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that often are parts of characters.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            Just(b'a'),
            0x80..=0x9fu8,
            0xa0..=0xbfu8,
            0xc0..=0xdfu8,
            0xe0..=0xefu8,
            0xf0..=0xf8u8
        ]
    }

    proptest! {
        #[test]
        fn equals_lossy_decoding_however_cut(pieces in prop::collection::vec(prop::collection::vec(byte(), 0..5), 0..9)) {
            let mut decoder = Decoder::new();
            let mut text = String::new();
            for piece in &pieces {
                text.push_str(decoder.push(piece));
            }
            text.push_str(decoder.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&pieces.concat()).into_owned());
            prop_assert_eq!(decoder.push(b"a"), "a");
        }

        #[test]
        fn characters_come_whole_and_at_once(text in ".{0,20}") {
            let mut decoder = Decoder::new();
            for character in text.chars() {
                let mut buffer = [0; 4];
                let bytes = character.encode_utf8(&mut buffer).as_bytes();
                let (last, first) = bytes.split_last().unwrap();
                for byte in first {
                    prop_assert_eq!(decoder.push(&[*byte]), "");
                }
                prop_assert_eq!(decoder.push(&[*last]), character.to_string());
            }
            prop_assert_eq!(decoder.finish(), "");
        }
    }
}
