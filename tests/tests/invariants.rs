//! What must stay absent: dependencies that point backwards, and things that do not belong in finished code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

/// What each crate may depend on in this workspace. Those that stand at the end of the line may use all of it.
const DIRECTION: &[(&str, &[&str])] = &[
    ("rwkvc-ir", &[]),
    ("rwkvc-abi", &[]),
    ("rwkvc-runtime", &["rwkvc-abi"]),
    ("rwkvc-side-by-side-protocol", &[]),
    ("rwkvc-frontend", &["rwkvc-ir"]),
    ("rwkvc-backend-api", &["rwkvc-abi", "rwkvc-ir"]),
    ("rwkvc-passes", &["rwkvc-abi", "rwkvc-ir", "rwkvc-backend-api"]),
    ("rwkvc-backend-cranelift", &["rwkvc-ir", "rwkvc-backend-api"]),
    (
        "rwkvc-backend-llvm",
        &["rwkvc-abi", "rwkvc-ir", "rwkvc-backend-api"],
    ),
];
const END_OF_THE_LINE: &[&str] = &["rwkvc", "rwkvc-side-by-side", "rwkvc-tests"];

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = DIRECTION.iter().copied().collect();
    let crates = workspace();
    let names: BTreeSet<&str> = crates.iter().map(|c| c.name.as_str()).collect();
    let expected = allowed.keys().chain(END_OF_THE_LINE).copied().collect();
    assert_eq!(
        names, expected,
        "every crate of the workspace needs a line in DIRECTION"
    );

    for Crate { name, uses } in &crates {
        let Some(allowed) = allowed.get(name.as_str()) else {
            continue;
        };
        let wrong: Vec<_> = uses
            .iter()
            .filter(|used| names.contains(used.as_str()) && !allowed.contains(&used.as_str()))
            .collect();
        assert!(
            wrong.is_empty(),
            "{name} depends on {wrong:?}, expected at most {allowed:?}"
        );
    }
}

#[test]
fn petgraph_stays_inside_the_graph() {
    let inside = Path::new("ir/src/graph");
    let outside: Vec<_> = rust_files()
        .filter(|(path, text)| !path.starts_with(inside) && text.contains(concat!("petgraph", "::")))
        .map(|(path, _)| path)
        .collect();
    assert!(
        outside.is_empty(),
        "petgraph is used outside of {}: {outside:?}",
        inside.display()
    );

    let users: Vec<_> = workspace()
        .into_iter()
        .filter(|c| c.uses.contains("petgraph"))
        .map(|c| c.name)
        .collect();
    assert_eq!(users, ["rwkvc-ir"]);
}

#[test]
fn nothing_is_left_for_later() {
    // In pieces, so that this file does not contain them.
    let unfinished = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    let mut found = vec![];
    for (path, text) in rust_files() {
        for (i, line) in text.lines().enumerate() {
            found.extend(
                unfinished
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{}:{}: {word}", path.display(), i + 1)),
            );
        }
    }
    assert!(found.is_empty(), "unfinished code:\n{}", found.join("\n"));
}

#[test]
fn silenced_lints_say_why() {
    let mut found = vec![];
    for (path, text) in rust_files() {
        for opening in [concat!("[", "allow("), concat!("[", "expect(")] {
            for (at, _) in text.match_indices(opening) {
                let starts_attribute = text[..at].ends_with('#') || text[..at].ends_with("#!");
                let attribute = text[at..]
                    .split_once(")]")
                    .map_or(&text[at..], |(inside, _)| inside);
                if starts_attribute && !attribute.contains("reason = ") {
                    let line = text[..at].lines().count();
                    found.push(format!("{}:{line}: #{attribute})]", path.display()));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "lints silenced without a reason:\n{}",
        found.join("\n")
    );
}

#[test]
fn functions_say_which_errors_they_return() {
    let mut found = vec![];
    for (path, text) in rust_files() {
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        let lines: Vec<&str> = text.lines().collect();
        let public = |line: &str| {
            let line = line.trim_start();
            ["pub fn ", "pub const fn ", "pub unsafe fn "]
                .iter()
                .any(|start| line.starts_with(start))
        };
        for (i, _) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| !is_test && public(line))
        {
            let signature = lines[i..].iter().scan(false, |ended, line| {
                let before = *ended;
                *ended = line.ends_with(['{', ';']);
                (!before).then_some(*line)
            });
            let signature: String = signature.collect::<Vec<_>>().join(" ");
            let result = signature.rsplit("->").next().unwrap_or_default().trim_start();
            let fails = ["Result<", "io::Result<", "anyhow::Result<"]
                .iter()
                .any(|r| result.starts_with(r));
            let above = lines[..i].iter().rev().map(|line| line.trim_start());
            let mut docs = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
            if fails && signature.contains("->") && !docs.any(|line| line == "/// # Errors") {
                found.push(format!("{}:{}: {}", path.display(), i + 1, lines[i].trim()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "without a section `# Errors`:\n{}",
        found.join("\n")
    );
}

/// Files that quote a word of others, and the reason.
const QUOTED: &[(&str, &str)] = &[
    ("src/tune/machine.rs", "what Linux writes into /proc/cpuinfo"),
    ("docs/lexicon.md", "the list itself"),
];

/// The last table of the lexicon has words for which there is a better one.
#[test]
fn words_are_those_of_the_lexicon() {
    let lexicon = read(Path::new("docs/lexicon.md")).expect("the lexicon");
    let (_, table) = lexicon
        .split_once("| not | but |\n|---|---|\n")
        .expect("the words that have a better one");
    let mut found = vec![];
    for path in tracked_files() {
        let is_ours = path.extension().is_some_and(|e| e == "rs" || e == "md");
        let is_quoted = QUOTED.iter().any(|(quoted, _)| path.ends_with(quoted));
        let Some(text) = read(&path).filter(|_| is_ours && !is_quoted) else {
            continue;
        };
        for row in table.lines() {
            let (words, better) = row
                .trim_matches(['|', ' '])
                .split_once(" | ")
                .expect("two columns");
            for word in words.split(", ").filter(|word| has_word(&text, word)) {
                found.push(format!("{}: `{word}`, say `{better}`", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "see docs/lexicon.md:\n{}", found.join("\n"));
}

/// Whether a text has a word that is no part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}

#[cfg(unix)]
#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;

    let mut scripts = 0;
    for path in tracked_files() {
        let full = root().join(&path);
        let Ok(bytes) = fs::read(&full) else { continue };
        if !bytes.starts_with(b"#!/") {
            continue;
        }
        scripts += 1;
        let mode = fs::metadata(&full)
            .expect("a file that was just read")
            .permissions()
            .mode();
        assert!(
            mode & 0o111 != 0,
            "{} starts with #! and is not executable",
            path.display()
        );
    }
    assert!(scripts > 0, "the scripts were not found");
}

struct Crate {
    name: String,
    /// The packages that it is built from: dependencies and build dependencies, for any platform, optional ones included.
    uses: BTreeSet<String>,
}

/// The root package and all members of the workspace.
fn workspace() -> Vec<Crate> {
    let manifest = manifest("Cargo.toml");
    let members = manifest["workspace"]["members"]
        .as_array()
        .expect("a list of members");
    let mut crates = vec![read_crate(&manifest)];
    crates.extend(members.iter().map(|member| {
        let member = member.as_str().expect("the path of a member");
        read_crate(&self::manifest(&format!("{member}/Cargo.toml")))
    }));
    crates
}

fn manifest(path: &str) -> Table {
    read(Path::new(path))
        .unwrap_or_else(|| panic!("{path} cannot be read"))
        .parse()
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_crate(manifest: &Table) -> Crate {
    let platforms = manifest.get("target").and_then(Value::as_table);
    let tables = platforms
        .into_iter()
        .flatten()
        .filter_map(|(_, table)| table.as_table());
    let mut uses = BTreeSet::new();
    for table in tables.chain([manifest]) {
        for kind in ["dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(kind).and_then(Value::as_table) else {
                continue;
            };
            uses.extend(dependencies.iter().map(|(key, value)| {
                // A renamed dependency says which package it is.
                value
                    .get("package")
                    .and_then(Value::as_str)
                    .unwrap_or(key)
                    .to_owned()
            }));
        }
    }
    Crate {
        name: manifest["package"]["name"].as_str().expect("a name").to_owned(),
        uses,
    }
}

fn rust_files() -> impl Iterator<Item = (PathBuf, String)> {
    tracked_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .filter_map(|path| read(&path).map(|text| (path, text)))
}

/// The files of the repository, relative to its root; some may have been removed since.
fn tracked_files() -> Vec<PathBuf> {
    let output = Command::new("git")
        // The checkout may belong to someone else, as in a container.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git lists the files of the repository");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).expect("file names in UTF-8");
    names.split_terminator('\0').map(PathBuf::from).collect()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
