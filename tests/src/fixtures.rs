//! The models that come with the project, and what is known of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkvc::{golden, load};
use rwkvc_frontend::model::Model;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Where a model or a golden is.
pub fn path(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match name {
        "demo.safetensors" => root.join("../models").join(name),
        _ => root.join("fixtures").join(name),
    }
}

/// The contents of a fixture.
///
/// # Panics
/// If it is not there.
pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Opens a model.
///
/// # Panics
/// If it does not open.
pub fn open(name: &str) -> Arc<Model> {
    load::open_checkpoint(&path(name)).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Opens a model whose file is in memory.
///
/// # Panics
/// If it does not open.
pub fn open_bytes(file: &[u8]) -> Arc<Model> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    std::fs::write(&path, file).expect("a file");
    load::open_checkpoint(&path).expect("a model")
}

/// A golden file.
pub struct Golden(Vec<u8>);

impl Golden {
    /// Reads it.
    ///
    /// # Panics
    /// If it is not there.
    pub fn open(name: &str) -> Self {
        Golden(read(name))
    }

    /// An array of f64 or f32 values.
    ///
    /// # Panics
    /// If there is no such array, or its values are of another type.
    pub fn floats(&self, name: &str) -> Vec<f64> {
        self.with(name, |tensor| {
            golden::floats(tensor.dtype(), tensor.data()).unwrap_or_else(|error| panic!("{name}: {error}"))
        })
    }

    /// An array of i32 token ids.
    ///
    /// # Panics
    /// If there is no such array.
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        self.with(name, |tensor| {
            tensor
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|b| u32::from_le_bytes(*b))
                .collect()
        })
    }

    fn with<T>(&self, name: &str, f: impl FnOnce(TensorView<'_>) -> T) -> T {
        let file = SafeTensors::deserialize(&self.0).expect("a sound file");
        f(file
            .tensor(name)
            .unwrap_or_else(|error| panic!("{name}: {error}")))
    }
}

/// The values of a `.npy` file that holds one row of f32.
///
/// # Panics
/// If it does not.
pub fn npy(name: &str) -> Vec<f64> {
    let bytes = read(name);
    // Magic and version, then the length of the description.
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (description, values) = bytes[10..].split_at(length);
    assert!(
        description.starts_with(b"{'descr': '<f4', 'fortran_order': False"),
        "{name} is not f32"
    );
    golden::floats(Dtype::F32, values).unwrap_or_else(|error| panic!("{name}: {error}"))
}
