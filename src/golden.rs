//! Golden files: what another implementation gives for some tokens.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rwkvc_frontend::checkpoint::parse_safetensors;
use safetensors::{Dtype, SafeTensors};

/// Tokens of a text, and the logits after each of them, row after row.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The text, from a fresh state on.
    pub tokens: Vec<u32>,
    /// `[tokens, vocab]`
    pub logits: Vec<f64>,
}

impl Golden {
    /// Reads a safetensors file with `tokens` (I32, `[n]`) and `logits_f64` or else `logits` (F64 or F32, `[n, vocab]`).
    ///
    /// # Errors
    /// If the file is none, lacks one of them, or does not belong to a model of this vocabulary.
    pub fn open(path: &Path, vocab: usize) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading `{}`", path.display()))?;
        Golden::parse(&bytes, vocab).with_context(|| format!("`{}`", path.display()))
    }

    /// The first `n` tokens.
    #[must_use]
    pub fn first(mut self, n: usize) -> Self {
        let vocab = self.logits.len() / self.tokens.len();
        self.tokens.truncate(n);
        self.logits.truncate(n * vocab);
        self
    }

    fn parse(bytes: &[u8], vocab: usize) -> Result<Self> {
        let file = parse_safetensors(bytes).map_err(|e| anyhow!("not a sound safetensors file: {e}"))?;
        let tokens = tokens(&file, vocab)?;
        let name = ["logits_f64", "logits"]
            .into_iter()
            .find(|name| file.tensor(name).is_ok())
            .context("there are neither `logits_f64` nor `logits`")?;
        let tensor = file.tensor(name)?;
        let expected = [tokens.len(), vocab];
        if tensor.shape() != expected {
            bail!(
                "`{name}` is {:?}, expected {expected:?}: a row for each token",
                tensor.shape()
            );
        }
        let logits = floats(tensor.dtype(), tensor.data()).with_context(|| format!("`{name}`"))?;
        Ok(Golden { tokens, logits })
    }
}

/// Little-endian numbers of an array.
///
/// # Errors
/// If they are stored neither as F64 nor as F32.
pub fn floats(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f64>> {
    match dtype {
        Dtype::F64 => {
            let numbers = bytes.as_chunks().0.iter();
            Ok(numbers.map(|b| f64::from_le_bytes(*b)).collect())
        }
        Dtype::F32 => {
            let numbers = bytes.as_chunks().0.iter();
            Ok(numbers.map(|b| f32::from_le_bytes(*b).into()).collect())
        }
        other => bail!("numbers are stored as {other:?}, expected F64 or F32"),
    }
}

fn tokens(file: &SafeTensors<'_>, vocab: usize) -> Result<Vec<u32>> {
    let tensor = file.tensor("tokens").context("there is no `tokens`")?;
    if tensor.dtype() != Dtype::I32 || tensor.shape().len() != 1 || tensor.shape()[0] == 0 {
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        bail!("`tokens` is {dtype:?} {shape:?}, expected I32 and one axis that is not empty");
    }
    let numbers = tensor.data().as_chunks().0.iter();
    let tokens: Vec<u32> = numbers.map(|b| u32::from_le_bytes(*b)).collect();
    match tokens.iter().find(|&&t| t as usize >= vocab) {
        Some(token) => bail!("token {token} is not in the vocabulary of {vocab}"),
        None => Ok(tokens),
    }
}
