//! Text in, text out, with the runtime alone: `story MODEL PROMPT`. MODEL is what `rwkvc compile` writes.

use std::error::Error;
use std::io::Write;

use rwkvc_runtime::tokenizer::Tokenizer;
use rwkvc_runtime::{GenerateOptions, Generator, Model, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (args.next(), args.next()) else {
        return Err("usage: story MODEL PROMPT".into());
    };
    let model = Model::open(path.as_ref())?;
    let tokenizer = Tokenizer::for_vocab(model.vocab())?;
    let tokens = tokenizer.prompt(prompt.as_bytes())?;
    let mut session = Session::new(&model, &Default::default())?;
    let mut out = std::io::stdout().lock();
    for piece in Generator::new(&mut session, Some(tokenizer), &tokens, GenerateOptions::default())? {
        out.write_all(piece?.text.as_bytes())?;
        out.flush()?;
    }
    Ok(writeln!(out)?)
}
