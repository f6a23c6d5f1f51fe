//! A pickle reader that executes nothing: it knows the opcodes and the few names that `torch.save` writes for a dictionary
//! of tensors, and refuses everything else by name.

use rwkvc_ir::DType;

/// Why a pickle is not a dictionary of tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {position} of the pickle: {reason}")]
pub struct PickleError {
    /// Where.
    pub position: usize,
    /// What is the matter.
    pub reason: String,
}

/// A storage: a run of elements that tensors are views of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) dtype: DType,
    pub(super) len: usize,
}

/// A view of a storage, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A value. Containers live on a heap, so that no nesting, however deep, is a recursion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Index into the heap.
    Object(usize),
}

#[derive(Debug)]
enum Object {
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// `module.name`
    Name(String),
    Storage(Storage),
    Tensor(View),
}

/// Reads one pickle.
pub(super) struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: std::collections::HashMap<u32, Value>,
    heap: Vec<Object>,
}

/// The most dimensions of a tensor.
const MAX_RANK: usize = 8;

type Result<T> = std::result::Result<T, PickleError>;

impl<'b> Machine<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Machine { bytes, at: 0, stack: vec![], marks: vec![], memo: Default::default(), heap: vec![] }
    }

    /// Reads up to the end of the pickle: its value, and how many bytes it took.
    fn run(&mut self) -> Result<Value> {
        loop {
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'K' => {
                    let n = self.take(1)?[0];
                    self.stack.push(Value::Int(n.into()));
                }
                b'M' => {
                    let n = self.number::<2>()?;
                    self.stack.push(Value::Int(n as i64));
                }
                b'J' => {
                    let n = self.number::<4>()? as u32 as i32;
                    self.stack.push(Value::Int(n.into()));
                }
                0x8a => self.long()?,
                b'X' => {
                    let n = self.number::<4>()? as usize;
                    self.text(n)?;
                }
                0x8c => {
                    let n = self.take(1)?[0].into();
                    self.text(n)?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.push(Object::Name(format!("{module}.{name}")));
                }
                0x93 => {
                    let (name, module) = (self.pop_text()?, self.pop_text()?);
                    self.push(Object::Name(format!("{module}.{name}")));
                }
                b'}' => self.push(Object::Dict(vec![])),
                b']' => self.push(Object::List(vec![])),
                b')' => self.push(Object::Tuple(vec![])),
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Object::Tuple(items));
                }
                0x85..=0x87 => {
                    let n = usize::from(opcode - 0x84);
                    let start = self.stack.len().checked_sub(n).ok_or_else(|| self.error("the stack is empty"))?;
                    let items = self.stack.split_off(start);
                    self.push(Object::Tuple(items));
                }
                b'q' => {
                    let key = self.take(1)?[0].into();
                    self.remember(key)?;
                }
                b'r' => {
                    let key = self.number::<4>()? as u32;
                    self.remember(key)?;
                }
                0x94 => {
                    let key = self.memo.len() as u32;
                    self.remember(key)?;
                }
                b'h' => {
                    let key = self.take(1)?[0].into();
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.number::<4>()? as u32;
                    self.recall(key)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.insert(items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                // The state of an object: `OrderedDict` carries `_metadata`, which says nothing about weights.
                b'b' => drop(self.pop()?),
                b'0' => drop(self.pop()?),
                _ => return Err(self.error(&format!("opcode {opcode:#04x} has no place in a checkpoint"))),
            }
        }
    }

    fn error(&self, reason: &str) -> PickleError {
        PickleError { position: self.at, reason: reason.into() }
    }

    fn take(&mut self, n: usize) -> Result<&'b [u8]> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let end = end.ok_or_else(|| self.error("it ends in the middle"))?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<u64> {
        let bytes = self.take(N)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// A signed integer of up to eight bytes. Legacy files start with a magic number of ten, which is kept as 0: nothing
    /// reads it but the check of the first bytes.
    fn long(&mut self) -> Result<()> {
        let n = usize::from(self.take(1)?[0]);
        let bytes = self.take(n)?;
        let value = if n > 8 {
            0
        } else {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..n].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        };
        self.stack.push(Value::Int(value));
        Ok(())
    }

    fn text(&mut self, n: usize) -> Result<()> {
        let bytes = self.take(n)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.error("a text is not UTF-8"))?;
        self.push(Object::Text(text.into()));
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().take(256).position(|&b| b == b'\n').ok_or_else(|| self.error("a name does not end"))?;
        let line = String::from_utf8_lossy(&rest[..n]).into_owned();
        self.at += n + 1;
        Ok(line)
    }

    fn push(&mut self, object: Object) {
        self.stack.push(Value::Object(self.heap.len()));
        self.heap.push(object);
    }

    fn pop(&mut self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.error("the stack is empty"));
        }
        self.stack.pop().ok_or_else(|| self.error("the stack is empty"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(|| self.error("there is no mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn pop_text(&mut self) -> Result<String> {
        let value = self.pop()?;
        self.as_text(value).map(String::from).ok_or_else(|| self.error("expected a text"))
    }

    fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(i) => self.heap.get(i),
            _ => None,
        }
    }

    fn as_text(&self, value: Value) -> Option<&str> {
        match self.object(value) {
            Some(Object::Text(t)) => Some(t),
            _ => None,
        }
    }

    fn as_tuple(&self, value: Value) -> Option<&[Value]> {
        match self.object(value) {
            Some(Object::Tuple(t)) => Some(t),
            _ => None,
        }
    }

    fn remember(&mut self, key: u32) -> Result<()> {
        let value = *self.stack.last().ok_or_else(|| self.error("the stack is empty"))?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let value = *self.memo.get(&key).ok_or_else(|| self.error("it refers to a value that is not there"))?;
        self.stack.push(value);
        Ok(())
    }

    fn insert(&mut self, items: Vec<Value>) -> Result<()> {
        let target = *self.stack.last().ok_or_else(|| self.error("the stack is empty"))?;
        let error = self.error("keys and values go into a dictionary");
        match target {
            Value::Object(i) if items.len().is_multiple_of(2) => match &mut self.heap[i] {
                Object::Dict(dict) => {
                    dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                    Ok(())
                }
                _ => Err(error),
            },
            _ => Err(error),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        let target = *self.stack.last().ok_or_else(|| self.error("the stack is empty"))?;
        let error = self.error("items go into a list");
        match target {
            Value::Object(i) => match &mut self.heap[i] {
                Object::List(list) => {
                    list.extend(items);
                    Ok(())
                }
                _ => Err(error),
            },
            _ => Err(error),
        }
    }

    /// `('storage', torch.BFloat16Storage, '0', 'cpu', n_elements[, view])`
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let items = self.as_tuple(id).unwrap_or_default().to_vec();
        let [kind, class, key, _, len, ..] = items[..] else {
            return Err(self.error("a reference to something other than a storage"));
        };
        if self.as_text(kind) != Some("storage") {
            return Err(self.error("a reference to something other than a storage"));
        }
        let class = match self.object(class) {
            Some(Object::Name(name)) => name.clone(),
            _ => return Err(self.error("a storage without a class")),
        };
        let dtype = match class.as_str() {
            "torch.FloatStorage" => DType::F32,
            "torch.HalfStorage" => DType::F16,
            "torch.BFloat16Storage" => DType::BF16,
            _ => {
                let known = "torch.FloatStorage, torch.HalfStorage or torch.BFloat16Storage";
                return Err(self.error(&format!("a storage is `{class}`, expected {known}")));
            }
        };
        let key = self.as_text(key).map(String::from).ok_or_else(|| self.error("a storage without a key"))?;
        let len = match len {
            Value::Int(n) => usize::try_from(n).map_err(|_| self.error("a storage of negative length"))?,
            _ => return Err(self.error("a storage without a length")),
        };
        self.push(Object::Storage(Storage { key, dtype, len }));
        Ok(())
    }

    fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let name = match self.object(callable) {
            Some(Object::Name(name)) => name.clone(),
            _ => return Err(self.error("it calls something that is not a name")),
        };
        let arguments = self.as_tuple(arguments).ok_or_else(|| self.error("a call without arguments"))?.to_vec();
        match name.as_str() {
            "collections.OrderedDict" => self.push(Object::Dict(vec![])),
            "torch._utils._rebuild_parameter" => {
                let data = *arguments.first().ok_or_else(|| self.error("a parameter without data"))?;
                self.stack.push(data);
            }
            "torch._utils._rebuild_tensor_v2" => {
                let view = self.view(&arguments)?;
                self.push(Object::Tensor(view));
            }
            _ => return Err(self.error(&format!("it calls `{name}`, which is not part of a checkpoint of tensors"))),
        }
        Ok(())
    }

    /// `(storage, offset, shape, strides, …)`
    fn view(&self, arguments: &[Value]) -> Result<View> {
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err(self.error("a tensor without storage, offset, shape and strides"));
        };
        let Some(Object::Storage(storage)) = self.object(*storage) else {
            return Err(self.error("a tensor without storage"));
        };
        let size = |v: &Value| match v {
            Value::Int(n) => usize::try_from(*n).map_err(|_| self.error("a negative size")),
            _ => Err(self.error("a size that is not a number")),
        };
        let sizes = |v: &Value| {
            let items = self.as_tuple(*v).ok_or_else(|| self.error("a shape that is not a tuple"))?;
            if items.len() > MAX_RANK {
                return Err(self.error(&format!("a tensor of {} dimensions, at most {MAX_RANK}", items.len())));
            }
            items.iter().map(size).collect::<Result<Vec<usize>>>()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(self.error("a tensor has more or fewer strides than dimensions"));
        }
        Ok(View { storage: storage.clone(), offset: size(offset)?, shape, strides })
    }

    /// The tensors of a pickled dictionary, by name, and the length of the pickle.
    pub(super) fn tensors(mut self) -> Result<(Vec<(String, View)>, usize)> {
        let value = self.run()?;
        let Some(Object::Dict(dict)) = self.object(value) else {
            return Err(self.error("it does not hold a dictionary of tensors"));
        };
        let mut tensors = vec![];
        for &(key, value) in dict {
            let name = self.as_text(key).ok_or_else(|| self.error("a key of the dictionary is not a text"))?;
            match self.object(value) {
                Some(Object::Tensor(view)) => tensors.push((name.to_string(), view.clone())),
                _ => return Err(self.error(&format!("`{name}` is not a tensor"))),
            }
        }
        Ok((tensors, self.at))
    }

    /// The texts of a pickled list, and the length of the pickle.
    pub(super) fn texts(mut self) -> Result<(Vec<String>, usize)> {
        let value = self.run()?;
        let Some(Object::List(list)) = self.object(value) else { return Err(self.error("it does not hold a list")) };
        let text = |&v: &Value| self.as_text(v).map(String::from).ok_or_else(|| self.error("a key is not a text"));
        let texts = list.iter().map(text).collect::<Result<Vec<String>>>()?;
        Ok((texts, self.at))
    }

    /// Reads a pickle for its length only.
    pub(super) fn skip(mut self) -> Result<usize> {
        self.run()?;
        Ok(self.at)
    }
}
