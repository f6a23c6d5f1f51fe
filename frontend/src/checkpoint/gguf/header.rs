//! The header of a GGUF file: metadata, and where the tensors are.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use super::MAGIC;

/// What the header says; texts and names are those of the file.
pub(super) struct Header<'m> {
    pub(super) metadata: HashMap<&'m str, Value<'m>>,
    pub(super) tensors: Vec<Info<'m>>,
    /// Where the tensors begin, in the file.
    pub(super) data: usize,
    /// What their offsets are multiples of.
    pub(super) alignment: usize,
}

/// A value of the metadata.
pub(super) enum Value<'m> {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Flag(bool),
    Text(Cow<'m, str>),
    /// Lists, of the vocabulary for example, are passed over.
    List,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(n) => n.fmt(f),
            Value::Signed(n) => n.fmt(f),
            Value::F32(x) => x.fmt(f),
            Value::F64(x) => x.fmt(f),
            Value::Flag(flag) => flag.fmt(f),
            Value::Text(text) => write!(f, "`{text}`"),
            Value::List => f.write_str("a list"),
        }
    }
}

/// A tensor, as the header describes it.
pub(super) struct Info<'m> {
    pub(super) name: &'m str,
    /// Outermost dimension first: the other way round than in the file.
    pub(super) shape: Vec<usize>,
    /// The number of its type.
    pub(super) kind: u32,
    /// Where it begins, from the beginning of all tensors.
    pub(super) offset: usize,
}

/// Offsets are multiples of this if the metadata says nothing else.
pub(crate) const ALIGNMENT: usize = 32;

/// The most dimensions that a tensor has.
const MAX_DIMENSIONS: u32 = 4;

/// Reads the header of a file that begins with the magic number. Takes time and memory in proportion to the file.
pub(super) fn read(file: &[u8]) -> Result<Header<'_>, String> {
    let mut at = Reader {
        file,
        at: MAGIC.len(),
    };
    let version = at.u32()?;
    // A file of the other byte order has its version in the upper half.
    if version & 0xffff == 0 && version != 0 {
        return Err("its byte order is `big`, expected `little`".into());
    }
    if !(2..=3).contains(&version) {
        return Err(format!("it is GGUF of version {version}, expected 2 or 3"));
    }
    let (n_tensors, n_values) = (at.u64()?, at.u64()?);
    let mut metadata = HashMap::new();
    for _ in 0..n_values {
        let key = at.name()?;
        let value = at.value(key)?;
        if metadata.insert(key, value).is_some() {
            return Err(format!("it says `{key}` twice"));
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(&Value::Unsigned(n)) if n.is_power_of_two() && n <= 1 << 30 => n as usize,
        Some(other) => {
            return Err(format!(
                "its `general.alignment` is {other}, expected a power of two"
            ));
        }
    };
    let (mut tensors, mut names) = (vec![], HashSet::new());
    for _ in 0..n_tensors {
        let info = at.info()?;
        if !names.insert(info.name) {
            return Err(format!("two tensors are named `{}`", info.name));
        }
        tensors.push(info);
    }
    Ok(Header {
        metadata,
        tensors,
        data: at.at.next_multiple_of(alignment),
        alignment,
    })
}

/// A place in the file.
struct Reader<'m> {
    file: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, n: u64) -> Result<&'m [u8], String> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let bytes = end.and_then(|end| self.file.get(self.at..end)).ok_or_else(|| {
            format!(
                "its header needs {n} bytes at byte {}, but the file has {}",
                self.at,
                self.file.len()
            )
        })?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("as many bytes as were taken"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'m [u8], String> {
        let n = self.u64()?;
        self.take(n)
    }

    fn name(&mut self) -> Result<&'m str, String> {
        let at = self.at;
        std::str::from_utf8(self.text()?).map_err(|_| format!("the name at byte {at} is not UTF-8"))
    }

    fn value(&mut self, key: &str) -> Result<Value<'m>, String> {
        let kind = self.u32()?;
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(self.array::<1>()?[0] as i8)),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Flag(self.array::<1>()?[0] != 0),
            8 => Value::Text(String::from_utf8_lossy(self.text()?)),
            9 => self.list(key)?,
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            _ => return Err(unknown(key, kind)),
        })
    }

    /// Passes over a list.
    fn list(&mut self, key: &str) -> Result<Value<'m>, String> {
        let (kind, n) = (self.u32()?, self.u64()?);
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..n {
                    self.text()?;
                }
                return Ok(Value::List);
            }
            _ => return Err(unknown(key, kind)),
        };
        self.take(n.saturating_mul(size))?;
        Ok(Value::List)
    }

    fn info(&mut self) -> Result<Info<'m>, String> {
        let name = self.name()?;
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(format!(
                "tensor `{name}` has {dimensions} dimensions, expected at most {MAX_DIMENSIONS}"
            ));
        }
        let mut size = || {
            let n = self.u64()?;
            usize::try_from(n).map_err(|_| format!("tensor `{name}` has a dimension of {n}"))
        };
        let mut shape = (0..dimensions).map(|_| size()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        let kind = self.u32()?;
        let offset = self.u64()?;
        let offset =
            usize::try_from(offset).map_err(|_| format!("tensor `{name}` begins at byte {offset}"))?;
        Ok(Info {
            name,
            shape,
            kind,
            offset,
        })
    }
}

fn unknown(key: &str, kind: u32) -> String {
    format!("the value of `{key}` is of type {kind}, which GGUF does not have")
}
