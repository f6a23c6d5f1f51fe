//! The bench's end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::{Answer, Ready, Request};

/// The threads of an engine may look for work for a while after its last answer. It must not be at another's cost.
const SETTLE: Duration = Duration::from_millis(20);

/// An engine in a process of its own, which ends with this.
pub struct Worker {
    name: String,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts an engine, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it is ready. What it says about that goes to standard error.
    pub fn start(command: &mut Command) -> Result<(Self, Ready)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("starting `{name}`"))?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let mut worker = Worker {
            name,
            child,
            requests: requests.context("there is a pipe to the engine")?,
            answers: BufReader::new(answers.context("there is a pipe from the engine")?),
        };
        let ready = worker.hear()?;
        Ok((worker, ready))
    }

    /// Seconds that so many tokens take, one after the other.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn decode(&mut self, tokens: usize) -> Result<f64> {
        self.seconds(Request::Decode(tokens))
    }

    /// Seconds that so many tokens take at once.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn prefill(&mut self, tokens: usize) -> Result<f64> {
        self.seconds(Request::Prefill(tokens))
    }

    /// The logits after so many tokens.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn logits(&mut self, tokens: usize) -> Result<Vec<f32>> {
        match self.ask(Request::Logits(tokens))? {
            Answer::Logits(logits) => Ok(logits),
            other => bail!("`{}` answered {other:?}", self.name),
        }
    }

    /// The most bytes that the process has had in memory, where the system tells.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn peak(&mut self) -> Result<Option<u64>> {
        match self.ask(Request::Peak)? {
            Answer::Bytes(bytes) => Ok(bytes),
            other => bail!("`{}` answered {other:?}", self.name),
        }
    }

    fn seconds(&mut self, request: Request) -> Result<f64> {
        match self.ask(request)? {
            Answer::Seconds(seconds) if seconds > 0.0 => Ok(seconds),
            other => bail!("`{}` answered {other:?}", self.name),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Answer> {
        sleep(SETTLE);
        let line = serde_json::to_string(&request)? + "\n";
        // Where the process has ended, its exit status says more than the broken pipe.
        match self.requests.write_all(line.as_bytes()) {
            Ok(()) => self.hear(),
            Err(_) => self.ended(),
        }
    }

    fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        if read.with_context(|| format!("reading what `{}` says", self.name))? == 0 {
            return self.ended();
        }
        serde_json::from_str(&line).with_context(|| format!("`{}` said `{}`", self.name, line.trim_end()))
    }

    fn ended<T>(&mut self) -> Result<T> {
        let status = self.child.wait()?;
        bail!("`{}` ended before it answered: {status}", self.name)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // There is nothing that it would have to finish. The wait keeps its memory out of the next measurement.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn script(text: &str) -> Result<(Worker, Ready)> {
        Worker::start(Command::new("sh").args(["-c", text]))
    }

    const READY: &str = r#"echo '{"engine":"x 1","built":"","load_s":0.5,"first_token_s":0.75}'"#;

    #[test]
    fn answers_come_back() {
        let answers = [r#"{"seconds":2.5}"#, r#"{"bytes":7}"#, r#"{"logits":[1,2]}"#];
        let text: String = answers
            .iter()
            .map(|a| format!("; read line; echo '{a}'"))
            .collect();
        let (mut worker, ready) = script(&(READY.to_owned() + &text)).expect("it is ready");
        assert_eq!(ready.engine, "x 1");
        assert_eq!(worker.decode(4).expect("seconds"), 2.5);
        assert_eq!(worker.peak().expect("bytes"), Some(7));
        assert_eq!(worker.logits(1).expect("logits"), [1.0, 2.0]);
    }

    #[test]
    fn an_engine_that_fails_is_named() {
        let error = script("exit 3").map(|_| ()).expect_err("it is never ready");
        assert_eq!(error.to_string(), "`sh` ended before it answered: exit status: 3");

        let (mut worker, _) = script(&format!("{READY}; read line; exit 4")).expect("it is ready");
        let error = worker.decode(1).expect_err("it ends");
        assert_eq!(error.to_string(), "`sh` ended before it answered: exit status: 4");

        let error = script("echo hello").map(|_| ()).expect_err("not JSON");
        assert_eq!(error.to_string(), "`sh` said `hello`");
        let error = Worker::start(&mut Command::new("/no/such"))
            .map(|_| ())
            .expect_err("not there");
        assert_eq!(error.to_string(), "starting `/no/such`");
    }
}
