//! From sampled tokens to text that can be shown.

use super::{Decoder, EmptyStop, StopFilter};
use crate::tokenizer::{END_OF_TEXT, Tokenizer};

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<'a> {
    /// Token 0.
    EndOfText,
    /// A stop string, which is not part of the text.
    Text(&'a str),
}

/// What a token adds to the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Complete characters, ready to be shown; often empty.
    pub text: &'a str,
    /// Set by the token that ends the text, and from then on.
    pub stop: Option<Stop<'a>>,
}

/// [`Tokenizer`], [`Decoder`] and [`StopFilter`] in a row.
///
/// ```
/// use rwkvc_runtime::text::{Stop, TextStream};
/// use rwkvc_runtime::tokenizer::Tokenizer;
///
/// let tokenizer = Tokenizer::bytes();
/// let mut stream = TextStream::new(tokenizer.clone(), ["\n\n"])?;
/// let mut shown = String::new();
/// for token in tokenizer.encode("Yes.\n\nMore")? {
///     let piece = stream.push(token);
///     shown.push_str(piece.text);
///     if piece.stop.is_some() {
///         assert_eq!(piece.stop, Some(Stop::Text("\n\n")));
///         break;
///     }
/// }
/// shown.push_str(stream.finish().text);
/// assert_eq!(shown, "Yes.");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    decoder: Decoder,
    filter: StopFilter,
    ended: bool,
    tail: String,
}

impl TextStream {
    /// A stream that ends at token 0 or at the first of `stops`.
    ///
    /// # Errors
    /// If a stop string is empty.
    pub fn new<S: Into<String>>(
        tokenizer: Tokenizer,
        stops: impl IntoIterator<Item = S>,
    ) -> Result<Self, EmptyStop> {
        let filter = StopFilter::new(stops)?;
        Ok(Self {
            tokenizer,
            decoder: Decoder::new(),
            filter,
            ended: false,
            tail: String::new(),
        })
    }

    /// Takes the next token. After a stop there is no more text.
    ///
    /// A token without an entry in the vocabulary, such as one of a model's padding rows, appears as U+FFFD.
    pub fn push(&mut self, token: u32) -> Piece<'_> {
        self.ended |= token == END_OF_TEXT;
        if self.ended {
            return Piece {
                text: "",
                stop: Some(self.stop_or_end()),
            };
        }
        // 0xff is in no UTF-8 text, so it also ends a character that was incomplete.
        let bytes = self.tokenizer.token(token).unwrap_or(b"\xff");
        let filtered = self.filter.push(self.decoder.push(bytes));
        Piece {
            text: filtered.text,
            stop: filtered.stop.map(Stop::Text),
        }
    }

    /// Ends the text and gives what was held back. The stream then is as new.
    pub fn finish(&mut self) -> Piece<'_> {
        self.tail.clear();
        // An incomplete character is one more piece for the filter, which may hold that back, too.
        self.tail.push_str(self.filter.push(self.decoder.finish()).text);
        let ended = std::mem::take(&mut self.ended);
        let rest = self.filter.finish();
        self.tail.push_str(rest.text);
        let stop = rest.stop.map(Stop::Text).or(ended.then_some(Stop::EndOfText));
        Piece {
            text: &self.tail,
            stop,
        }
    }

    fn stop_or_end(&self) -> Stop<'_> {
        self.filter.stop().map_or(Stop::EndOfText, Stop::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stops: &[&str]) -> TextStream {
        TextStream::new(Tokenizer::world(), stops.iter().copied()).unwrap()
    }

    #[test]
    fn stop_strings_may_span_tokens() {
        let mut stream = stream(&["\n\nUser:"]);
        let tokens = Tokenizer::world().encode("Hi there.\n\nUser: hi").unwrap();
        let mut text = String::new();
        let used = tokens.iter().position(|&token| {
            let piece = stream.push(token);
            text.push_str(piece.text);
            piece.stop == Some(Stop::Text("\n\nUser:"))
        });
        assert_eq!((text.as_str(), used), ("Hi there.", Some(tokens.len() - 2)));
        assert_eq!(
            stream.push(0),
            Piece {
                text: "",
                stop: Some(Stop::Text("\n\nUser:"))
            }
        );
        assert_eq!(
            stream.finish(),
            Piece {
                text: "",
                stop: Some(Stop::Text("\n\nUser:"))
            }
        );
    }

    #[test]
    fn token_0_ends_the_text_and_releases_the_rest() {
        let mut stream = stream(&["ab"]);
        assert_eq!(stream.push(98), Piece { text: "", stop: None });
        assert_eq!(
            stream.push(0),
            Piece {
                text: "",
                stop: Some(Stop::EndOfText)
            }
        );
        assert_eq!(
            stream.push(98),
            Piece {
                text: "",
                stop: Some(Stop::EndOfText)
            }
        );
        assert_eq!(
            stream.finish(),
            Piece {
                text: "a",
                stop: Some(Stop::EndOfText)
            }
        );
        assert_eq!(
            stream.push(99),
            Piece {
                text: "b",
                stop: None
            }
        );
    }

    #[test]
    fn characters_of_several_tokens_come_whole() {
        let mut stream = stream(&[]);
        let tokens: Vec<u32> = "🦤".bytes().map(|byte| u32::from(byte) + 1).collect();
        for &token in &tokens[..3] {
            assert_eq!(stream.push(token).text, "");
        }
        assert_eq!(stream.push(tokens[3]).text, "🦤");
        assert_eq!(stream.push(tokens[0]).text, "");
        assert_eq!(stream.finish().text, "\u{fffd}");
    }

    #[test]
    fn padding_rows_show_as_replacement_characters() {
        let mut stream = stream(&[]);
        assert_eq!(stream.push(0xe6 + 1).text, "");
        assert_eq!(stream.push(65_535).text, "\u{fffd}\u{fffd}");
    }
}
