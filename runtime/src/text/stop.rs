//! Stop strings.

use thiserror::Error;

/// A stop string without characters would stop before the first one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("stop string {index} (counted from 0) is empty")]
pub struct EmptyStop {
    /// Its place in the list.
    pub index: usize,
}

/// What a [`StopFilter`] gives for a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtered<'a> {
    /// Text that no stop string can take back.
    pub text: &'a str,
    /// The stop string that ended the text; it is not part of any `text`.
    pub stop: Option<&'a str>,
}

/// Ends text at the first of some strings, and holds back what may turn out to be the start of one.
///
/// The result does not depend on how the text is cut: the stop string that is complete first ends it, the longest one
/// if several are complete with the same character.
///
/// ```
/// use rwkvc_runtime::text::StopFilter;
///
/// let mut filter = StopFilter::new(["\n\nUser:"])?;
/// assert_eq!(filter.push("Fine.\n").text, "Fine.");
/// assert_eq!(filter.push("And you?\n\nUs").text, "\nAnd you?");
/// let end = filter.push("er: hi");
/// assert_eq!((end.text, end.stop), ("", Some("\n\nUser:")));
/// # Ok::<(), rwkvc_runtime::text::EmptyStop>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    /// Text that is not given out yet, after `given` bytes that the last call gave.
    held: String,
    given: usize,
    stopped: Option<usize>,
}

impl StopFilter {
    /// A filter for `stops`; without any, all text passes at once.
    ///
    /// # Errors
    /// If one of them is empty.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Result<Self, EmptyStop> {
        let stops: Vec<String> = stops.into_iter().map(Into::into).collect();
        match stops.iter().position(String::is_empty) {
            Some(index) => Err(EmptyStop { index }),
            None => Ok(Self {
                stops,
                held: String::new(),
                given: 0,
                stopped: None,
            }),
        }
    }

    /// Takes the next text and gives what is certain. After a stop there is no more text.
    pub fn push(&mut self, text: &str) -> Filtered<'_> {
        self.held.drain(..self.given);
        self.given = 0;
        if self.stopped.is_none() {
            self.held.push_str(text);
            match self.first_stop() {
                Some((start, index)) => {
                    self.held.truncate(start);
                    self.given = start;
                    self.stopped = Some(index);
                }
                None => self.given = self.held.len() - self.possible_start(),
            }
        }
        Filtered {
            text: &self.held[..self.given],
            stop: self.stop(),
        }
    }

    /// Ends the text and gives what was held back. The filter then is as new.
    pub fn finish(&mut self) -> Filtered<'_> {
        let stopped = self.stopped.take();
        self.held.drain(..self.given);
        self.given = self.held.len();
        Filtered {
            text: &self.held,
            stop: stopped.map(|index| self.stops[index].as_str()),
        }
    }

    /// The stop string that ended the text.
    pub fn stop(&self) -> Option<&str> {
        self.stopped.map(|index| self.stops[index].as_str())
    }

    /// Where the first complete stop string starts in `held`, and which it is.
    fn first_stop(&self) -> Option<(usize, usize)> {
        self.stops
            .iter()
            .enumerate()
            .filter_map(|(index, stop)| {
                self.held
                    .find(stop)
                    .map(|start| (start + stop.len(), start, index))
            })
            .min()
            .map(|(_, start, index)| (start, index))
    }

    /// Length of the longest end of `held` that is the beginning of a stop string.
    fn possible_start(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let stop = stop.as_bytes();
            (1..stop.len().min(held.len() + 1))
                .rev()
                .find(|&length| held.ends_with(&stop[..length]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut filter = StopFilter::new(stops.iter().copied()).unwrap();
        let mut text = String::new();
        for piece in pieces {
            text.push_str(filter.push(piece).text);
        }
        let end = filter.finish();
        text.push_str(end.text);
        (text, end.stop.map(str::to_owned))
    }

    #[test]
    fn finds_stops_across_pieces() {
        assert_eq!(
            run(&["abc"], &["xa", "b", "cy", "z"]),
            ("x".into(), Some("abc".into()))
        );
        assert_eq!(run(&["abc"], &["xa", "b", "a", "bd"]), ("xababd".into(), None));
        assert_eq!(
            run(&["aab"], &["a", "a", "a", "b"]),
            ("a".into(), Some("aab".into()))
        );
        assert_eq!(
            run(&["é!"], &["caf", "é", "!"]),
            ("caf".into(), Some("é!".into()))
        );
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }

    #[test]
    fn the_first_complete_stop_wins() {
        assert_eq!(run(&["abc", "b"], &["abc"]), ("a".into(), Some("b".into())));
        assert_eq!(run(&["bc", "abc"], &["abc"]), ("".into(), Some("abc".into())));
    }

    #[test]
    fn holds_back_no_more_than_needed() {
        let mut filter = StopFilter::new(["\n\nUser:"]).unwrap();
        assert_eq!(filter.push("a\n").text, "a");
        assert_eq!(filter.push("b").text, "\nb");
        assert_eq!(filter.push("\n\nUse it").text, "\n\nUse it");
        assert_eq!(filter.push("\n\n").text, "");
        assert_eq!(
            filter.finish(),
            Filtered {
                text: "\n\n",
                stop: None
            }
        );
        assert_eq!(filter.push("again").text, "again");
    }

    #[test]
    fn nothing_follows_a_stop() {
        let mut filter = StopFilter::new(["."]).unwrap();
        assert_eq!(
            filter.push("a.b"),
            Filtered {
                text: "a",
                stop: Some(".")
            }
        );
        assert_eq!(
            filter.push("c"),
            Filtered {
                text: "",
                stop: Some(".")
            }
        );
        assert_eq!(
            filter.finish(),
            Filtered {
                text: "",
                stop: Some(".")
            }
        );
        assert_eq!(
            filter.push("d"),
            Filtered {
                text: "d",
                stop: None
            }
        );
    }

    #[test]
    fn empty_stops_are_refused() {
        let error = StopFilter::new(["a", ""]).unwrap_err();
        assert_eq!(error.to_string(), "stop string 1 (counted from 0) is empty");
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
            pieces in prop::collection::vec("[abcé]{0,4}", 0..8),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let (text, stop) = run(&stops, &pieces);
            prop_assert_eq!(&(text.clone(), stop.clone()), &run(&stops, &[&whole]));
            match stop {
                Some(stop) => prop_assert!(whole.starts_with(&(text + &stop))),
                None => prop_assert_eq!(text, whole),
            }
        }
    }
}
