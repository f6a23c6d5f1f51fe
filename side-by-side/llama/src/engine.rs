//! One model with one state.

use std::ffi::{CStr, c_char};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_sys_2 as sys;
use rwkvc_side_by_side_protocol::{Engine, Opened};

/// The most tokens of a prefill, which llama.cpp computes in parts of [`MICRO_BATCH`].
const BATCH: u32 = 2048;

/// Its default.
const MICRO_BATCH: u32 = 512;

/// Does what comes from standard input.
pub(crate) fn serve(path: &Path, threads: u16) -> Result<()> {
    let start = Instant::now();
    let backend = crate::backend()?;
    let model = LlamaModel::load_from_file(&backend, path, &LlamaModelParams::default())
        .with_context(|| format!("opening `{}`", path.display()))?;
    let threads = i32::from(threads);
    let params = LlamaContextParams::default()
        // A recurrent model has no context of so many tokens, but a batch may not be longer.
        .with_n_ctx(NonZeroU32::new(BATCH))
        .with_n_batch(BATCH)
        .with_n_ubatch(MICRO_BATCH)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let context = model.new_context(&backend, params)?;
    let mut llama = Llama {
        vocab: usize::try_from(model.n_vocab())?,
        context,
    };
    // SAFETY: both functions give texts that live as long as the program.
    let (version, built) = unsafe { (sys::llama_version(), sys::llama_print_system_info()) };
    let opened = Opened {
        name: format!("llama.cpp {}", text(version)),
        built: text(built).trim().to_owned(),
        start,
        load: start.elapsed(),
    };
    rwkvc_side_by_side_protocol::serve(&mut llama, opened)
}

/// A text that lives as long as the program.
fn text(pointer: *const c_char) -> String {
    // SAFETY: llama.cpp's texts end with a zero.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

struct Llama<'m> {
    context: LlamaContext<'m>,
    vocab: usize,
}

impl Engine for Llama<'_> {
    fn vocab(&self) -> usize {
        self.vocab
    }

    fn reset(&mut self) -> Result<()> {
        self.context.clear_kv_cache();
        Ok(())
    }

    fn step(&mut self, token: u32) -> Result<&[f32]> {
        self.prefill(&[token])
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        let tokens: Vec<LlamaToken> = tokens.iter().map(|&t| LlamaToken(t.cast_signed())).collect();
        // Positions go on from the last call; of the last token there are logits.
        self.context.decode(&mut LlamaBatch::get_one(&tokens)?)?;
        Ok(self.context.get_logits_ith(-1))
    }
}
