//! What the compiler makes, as hashes: of kernels, plans, code and artifacts, over models × targets × backends × passes.
//!
//! A change of structure leaves them equal; a change of what is made changes the records, and its commit says why. The
//! records are in `tests/replay`, a line for each [`Row`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkvc::backends;
use rwkvc::compile::{Compiled, Options, PROGRAMS, compile};
use rwkvc_backend_api::{Backend, Target};
use rwkvc_frontend::generate::GenerateOptions;
use rwkvc_frontend::model::Model;
use rwkvc_ir::DType;
use rwkvc_passes::bf16_activations::Activations;
use rwkvc_passes::pipeline::{STANDARD, Selection};
use rwkvc_passes::quantize::Formats;
use sha2::{Digest, Sha256};

use crate::cases::write_artifact;
use crate::fixtures;
use crate::random::{Extras, Random, file, file_with};

/// Which models are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Two small models with random weights: less than a minute.
    Small,
    /// The models that come with the project: minutes.
    All,
}

impl Scope {
    /// Where its records are.
    pub fn path(self) -> PathBuf {
        let name = match self {
            Scope::Small => "small.txt",
            Scope::All => "all.txt",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("replay").join(name)
    }

    /// The models, and whether they are compiled in all ways, or fused and unfused only.
    fn models(self) -> Vec<(&'static str, Arc<Model>, bool)> {
        match self {
            Scope::Small => vec![
                ("even", fixtures::open_bytes(&even()), true),
                ("odd", fixtures::open_bytes(&odd()), false),
            ],
            Scope::All => ["demo.safetensors", "deepembed-random.pth", "tracker.pth"]
                .map(|name| (name, fixtures::open(name), true))
                .into(),
        }
    }
}

/// A model of sizes that every vector and tile divides.
fn even() -> Vec<u8> {
    file(&GenerateOptions {
        n_layers: 2,
        width: 128,
        head_size: 64,
        ffn: 512,
        vocab: 256,
        ranks: [32, 32, 16, 32],
        dtype: DType::BF16,
        seed: 1,
        layer0_value_gate: false,
        has_ln0: true,
        zero_share: None,
    })
}

/// A model of sizes that nothing divides, with every part that only some models have.
fn odd() -> Vec<u8> {
    let options = GenerateOptions {
        n_layers: 2,
        width: 60,
        head_size: 20,
        ffn: 101,
        vocab: 77,
        ranks: [7, 5, 3, 9],
        dtype: DType::F16,
        seed: 2,
        layer0_value_gate: true,
        has_ln0: true,
        zero_share: None,
    };
    let extras = Extras {
        biases: true,
        time_state: true,
        deep_embed: Some(3),
        mixed: true,
    };
    file_with(&options, extras, &mut Random(3))
}

/// One way to compile a model.
struct Variant {
    target: &'static str,
    backend: &'static str,
    /// The name of the selection, and the passes.
    passes: (String, Selection),
}

/// All ways, for a model: CPU targets with every backend, GPU targets with LLVM.
fn variants() -> Vec<Variant> {
    let fused = || ("fused".to_owned(), Selection::all());
    let unfused = || ("unfused".to_owned(), Selection::unfused());
    let weights = |text: &str| {
        let formats: Formats = text.parse().expect("formats of weights");
        (text.to_owned(), Selection::all().with(formats))
    };
    let bf16 = || {
        let passes = Selection::all().with(Activations::BF16);
        ("bf16-activations".to_owned(), passes)
    };
    let mut all = vec![];
    let mut add = |target, backend, passes: Vec<(String, Selection)>| {
        all.extend(passes.into_iter().map(|passes| Variant {
            target,
            backend,
            passes,
        }));
    };
    add(
        "cpu:x86-64-v3",
        "llvm",
        vec![fused(), unfused(), weights("int8"), weights("int4")],
    );
    add(
        "cpu:x86-64-v4+avx512vnni",
        "llvm",
        vec![fused(), weights("int8,head=int4")],
    );
    add("cpu:aarch64+dotprod", "llvm", vec![fused(), weights("int4")]);
    add("cuda:sm_80", "llvm", vec![fused(), unfused()]);
    add("cuda:sm_90", "llvm", vec![bf16()]);
    add(
        "cpu:x86-64-v3",
        "cranelift",
        vec![fused(), unfused(), weights("int8"), weights("int4")],
    );
    add("cpu:aarch64", "cranelift", vec![fused(), weights("int8")]);
    // Each pass alone: what the others do without it.
    let without = STANDARD.iter().map(|pass| {
        let passes = Selection::all()
            .without(&[pass.name])
            .expect("a pass of the list");
        (format!("no-{}", pass.name), passes)
    });
    add("cpu:x86-64-v3", "cranelift", without.collect());
    all
}

/// The hashes of what one variant makes of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The model, target, backend and passes.
    pub variant: String,
    /// A column and its hash: `kernels` and `plan` do not depend on a version of LLVM, `code` and `artifact` do.
    pub hashes: BTreeMap<String, String>,
}

impl Row {
    fn new(variant: String, model: &Arc<Model>, mut compiled: Compiled) -> Self {
        // What only people read may change without a change of what runs.
        compiled.manifest.producer = String::new();
        compiled.manifest.passes = vec![];
        let kernels = kernels(&compiled);
        let plan = serde_json::to_vec(&compiled.manifest).expect("a manifest");
        let hashes = [
            ("kernels", hash(kernels.as_bytes())),
            ("plan", hash(&plan)),
            ("code", hash(compiled.module.bytes())),
            ("artifact", hash(&artifact(model, compiled))),
        ];
        Row {
            variant,
            hashes: hashes.map(|(name, hash)| (name.to_owned(), hash)).into(),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (variant, hashes) = line.split_once(" | ")?;
        let hash = |text: &str| {
            let (name, hash) = text.split_once('=')?;
            Some((name.to_owned(), hash.to_owned()))
        };
        Some(Row {
            variant: variant.to_owned(),
            hashes: hashes.split(' ').map(hash).collect::<Option<_>>()?,
        })
    }

    /// The columns in which another row differs.
    fn differences(&self, other: &Row) -> Vec<&str> {
        let columns = self.hashes.iter();
        columns
            .filter(|(name, hash)| other.hashes.get(*name) != Some(hash))
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hashes: Vec<String> = self.hashes.iter().map(|(n, h)| format!("{n}={h}")).collect();
        write!(f, "{} | {}", self.variant, hashes.join(" "))
    }
}

/// All kernels, as text.
fn kernels(compiled: &Compiled) -> String {
    let kernels = compiled.plan.kernels.iter();
    kernels.map(|kernel| format!("{}\n", **kernel)).collect()
}

/// The file that `rwkvc compile` writes.
fn artifact(model: &Arc<Model>, compiled: Compiled) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("artifact");
    write_artifact(model, compiled, &path);
    fs::read(&path).expect("an artifact")
}

/// 64 bits of SHA-256.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8]
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The first line of the records: LLVM's version decides its code.
fn header() -> String {
    #[cfg(feature = "llvm")]
    return format!("# llvm {}", rwkvc_backend_llvm::version());
    #[cfg(not(feature = "llvm"))]
    "# llvm none".to_owned()
}

/// Compiles every variant whose backend is built in; `each` sees every row. What was made goes into the folder `dump`.
pub fn compile_all(scope: Scope, dump: Option<&Path>, each: &mut dyn FnMut(&Row)) -> Vec<Row> {
    let mut rows = vec![];
    for (name, model, in_all_ways) in scope.models() {
        for variant in variants() {
            if !in_all_ways && !matches!(variant.passes.0.as_str(), "fused" | "unfused") {
                continue;
            }
            let Some(backend) = backends::all().into_iter().find(|b| b.name() == variant.backend) else {
                continue;
            };
            let Variant { target, passes, .. } = variant;
            let text = format!("{name} {target} {} {}", backend.name(), passes.0);
            let compiled = compiled(&model, backend, target, passes.1)
                .unwrap_or_else(|error| panic!("{text}: {error:#}"));
            if let Some(folder) = dump {
                write_dump(&folder.join(text.replace([' ', ':'], "_")), &compiled).expect("a dump");
            }
            let row = Row::new(text, &model, compiled);
            each(&row);
            rows.push(row);
        }
    }
    rows
}

fn compiled(
    model: &Arc<Model>,
    backend: &'static dyn Backend,
    target: &str,
    passes: Selection,
) -> anyhow::Result<Compiled> {
    compile(
        model,
        &mut Options {
            backend,
            target: Target::parse(target)?,
            passes,
            tuning: None,
            fuel: None,
            programs: PROGRAMS.to_vec(),
            probes: false,
            after_pass: &mut |_, _| {},
        },
    )
}

/// What the hashes are of, as files to be compared with those of another version.
fn write_dump(folder: &Path, compiled: &Compiled) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let kernels = kernels(compiled);
    fs::write(folder.join("kernels.txt"), kernels)?;
    fs::write(
        folder.join("plan.json"),
        serde_json::to_vec_pretty(&compiled.manifest)?,
    )?;
    fs::write(folder.join("code"), compiled.module.bytes())
}

/// Keeps the rows as the records of a scope.
///
/// # Errors
/// If the file cannot be written.
pub fn bless(scope: Scope, rows: &[Row]) -> std::io::Result<()> {
    let mut text = header() + "\n";
    rows.iter().for_each(|row| {
        let _ = writeln!(text, "{row}");
    });
    fs::write(scope.path(), text)
}

/// How the rows differ from the records, a line each; and notes on what could not be compared.
///
/// # Errors
/// If there are no records.
pub fn compare(scope: Scope, rows: &[Row]) -> std::io::Result<(Vec<String>, Vec<String>)> {
    let text = fs::read_to_string(scope.path())?;
    let same_llvm = text.lines().next() == Some(&header());
    let records: Vec<Row> = text.lines().filter_map(Row::parse).collect();
    let mut notes = vec![];
    if !same_llvm {
        let recorded = text.lines().next().unwrap_or_default();
        notes.push(format!(
            "recorded with `{recorded}`, this is `{}`: code of LLVM is not compared",
            header()
        ));
    }
    let mut differences = vec![];
    for row in rows {
        let Some(record) = records.iter().find(|r| r.variant == row.variant) else {
            differences.push(format!("{}: not recorded", row.variant));
            continue;
        };
        let depends_on_llvm = row.variant.contains(" llvm ") && !same_llvm;
        let mut columns = record.differences(row);
        columns.retain(|c| !(depends_on_llvm && matches!(*c, "code" | "artifact")));
        if !columns.is_empty() {
            differences.push(format!("{}: other {}", row.variant, columns.join(", ")));
        }
    }
    for record in &records {
        let built = backends::all()
            .into_iter()
            .any(|b| record.variant.contains(&format!(" {} ", b.name())));
        if !rows.iter().any(|r| r.variant == record.variant) {
            match built {
                true => differences.push(format!("{}: recorded, but not made any more", record.variant)),
                false => notes.push(format!("{}: its backend is not built in", record.variant)),
            }
        }
    }
    Ok((differences, notes))
}
