//! The compiler in a program: a checkpoint is compiled in memory and continues a prompt.
//!
//! `cargo run --release --example compile -- models/demo.safetensors "Once upon a time"`

use std::error::Error;
use std::io::Write;

use rwkvc::compile::Options;
use rwkvc::{backends, load};
use rwkvc_abi::ProgramKind;
use rwkvc_passes::pipeline::Selection;
use rwkvc_runtime::tokenizer::Tokenizer;
use rwkvc_runtime::{GenerateOptions, Generator, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (args.next(), args.next()) else {
        return Err("usage: compile CHECKPOINT PROMPT".into());
    };
    let checkpoint = load::open_checkpoint(path.as_ref())?;
    let mut options = Options {
        backend: backends::find(None)?,
        target: backends::target("cpu")?,
        passes: Selection::all(),
        tuning: None,
        fuel: None,
        programs: vec![ProgramKind::Decode, ProgramKind::Prefill],
        probes: false,
        after_pass: &mut |_, _| {},
    };
    let model = load::load(&checkpoint, &mut options)?;
    let tokenizer = Tokenizer::for_vocab(model.vocab())?;
    let tokens = tokenizer.prompt(prompt.as_bytes())?;
    let mut session = Session::new(&model, &Default::default())?;
    let mut out = std::io::stdout().lock();
    for piece in Generator::new(&mut session, Some(tokenizer), &tokens, GenerateOptions::default())? {
        write!(out, "{}", piece?.text)?;
        out.flush()?;
    }
    Ok(writeln!(out)?)
}
