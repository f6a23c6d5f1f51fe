//! Runs the program and looks at what it leaves.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The program, ready for arguments.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rwkvc"));
    command.stdin(Stdio::null());
    command
}

/// The small model that comes with the project.
pub(crate) fn demo() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo.safetensors")
}

/// What another implementation says of the small model.
pub(crate) fn golden() -> &'static str {
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/demo-golden.safetensors"
    )
}

/// That model, compiled once for all tests.
pub(crate) fn artifact() -> &'static str {
    static ARTIFACT: OnceLock<String> = OnceLock::new();
    ARTIFACT.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("demo.rwkvc");
        let path = path.to_str().expect("a path in UTF-8").to_string();
        succeeds(["compile", demo(), "-o", &path, "--backend", "cranelift"]);
        path
    })
}

/// A random model with a vocabulary of bytes, smaller than the demo, generated once for all tests.
pub(crate) fn tiny() -> &'static str {
    static TINY: OnceLock<String> = OnceLock::new();
    TINY.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tiny.safetensors");
        let path = path.to_str().expect("a path in UTF-8").to_string();
        let sizes = [
            "--layers",
            "2",
            "--dim",
            "64",
            "--head-size",
            "32",
            "--vocab",
            "300",
        ];
        succeeds([&["generate", "-o", &path][..], &sizes].concat());
        path
    })
}

/// The header of the tiny model: its tensors by name.
pub(crate) fn tiny_header() -> Value {
    let bytes = std::fs::read(tiny()).expect("the tiny model");
    let mut header: Value = serde_json::from_slice(&bytes[8..data_start(&bytes)]).expect("a header");
    header.as_object_mut().expect("an object").remove("__metadata__");
    header
}

/// Where the weights of a safetensors file begin.
pub(crate) fn data_start(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize
}

/// A safetensors file of this header and these weights.
pub(crate) fn with_header(header: &Value, weights: &[u8]) -> Vec<u8> {
    let mut header = header.to_string();
    // The weights begin at a multiple of 64.
    while !(8 + header.len()).is_multiple_of(64) {
        header.push(' ');
    }
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), weights].concat()
}

/// A file with the first 1500 bytes of the text that the demo model was not trained on.
pub(crate) fn heldout(folder: &Folder) -> String {
    let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/heldout.txt");
    let text = std::fs::read(whole).expect("the fixture");
    folder.file("heldout.txt", &text[..1500])
}

/// A folder that is gone after the test, the working directory of what runs in it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path().join(name), bytes).expect("writing a test file");
        self.join(name)
    }

    pub(crate) fn join(&self, name: &str) -> String {
        self.path()
            .join(name)
            .to_str()
            .expect("a path in UTF-8")
            .to_string()
    }

    /// Names of all files, hidden ones too.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("the folder is there");
        let name = |e: std::io::Result<std::fs::DirEntry>| e.expect("an entry").file_name();
        let mut names: Vec<String> = entries.map(|e| name(e).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Runs the program here; it must fail, name all of `names`, print no result and leave no file.
    pub(crate) fn refuses<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, names: &[&str]) {
        let before = self.names();
        let mut command = program();
        command.args(args).current_dir(self.path());
        let what = format!("{command:?}");
        failed(&what, &command.output().expect("the program starts"), names);
        assert_eq!(self.names(), before, "{what}: files");
    }
}

/// Checks an output for one clear error.
fn failed(what: &str, output: &Output, names: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {stderr}");
    assert!(stderr.starts_with("error: "), "{what}: {stderr}");
    for name in names {
        assert!(stderr.contains(name), "{what}: expected `{name}` in: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{what}: standard output is not empty");
}

/// Runs the program; it must fail and name all of `names`.
pub(crate) fn fails<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, names: &[&str]) {
    Folder::new().refuses(args, names);
}

/// Runs the program, which must succeed; its standard output.
pub(crate) fn succeeds<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let mut command = program();
    command.args(args);
    succeeded(
        command.output().expect("the program starts"),
        &format!("{command:?}"),
    )
}

/// The same with something on standard input.
pub(crate) fn succeeds_with_input<S: AsRef<OsStr>>(
    args: impl IntoIterator<Item = S>,
    input: &[u8],
) -> String {
    let mut command = program();
    command.args(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("the program reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    succeeded(output, &format!("{command:?}"))
}

fn succeeded(output: Output, what: &str) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{what}: {stderr}");
    String::from_utf8(output.stdout).expect("standard output in UTF-8")
}

/// Runs the program with `--format json`; it must succeed and print one document on one line.
pub(crate) fn json<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Value {
    let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
    document(&succeeds(
        args.iter()
            .map(|a| a.as_os_str())
            .chain(["--format".as_ref(), "json".as_ref()]),
    ))
}

/// The one JSON document that an output is.
pub(crate) fn document(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The keys of an object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

/// An array of numbers.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let number = |v: &Value| v.as_f64().unwrap_or_else(|| panic!("{v} is not a number"));
    value.as_array().expect("an array").iter().map(number).collect()
}

/// An array of token ids.
pub(crate) fn ids(value: &Value) -> Vec<u64> {
    let id = |v: &Value| v.as_u64().unwrap_or_else(|| panic!("{v} is not a token id"));
    value.as_array().expect("an array").iter().map(id).collect()
}

/// Token ids as the command line takes them.
pub(crate) fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}
