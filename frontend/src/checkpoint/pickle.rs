//! A pickle reader that executes nothing: it knows the opcodes and the few names that `torch.save` writes for a dictionary
//! of tensors, and refuses everything else by name.

mod calls;
mod results;

use std::rc::Rc;

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
    pub(super) key: Rc<str>,
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
    Text(Rc<str>),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// `module.name`
    Name(Rc<str>),
    Storage(Storage),
    Tensor(View),
}

/// Reads one pickle.
pub(super) struct PickleMachine<'b> {
    bytes: &'b [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: std::collections::HashMap<u32, Value>,
    heap: Vec<Object>,
}

/// The most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// The longest pickle: the names and shapes of a large model take about 200 KiB.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// The most texts, tuples and other values that take memory; a tensor makes about ten.
const MAX_OBJECTS: usize = 1 << 18;

/// The longest name of a class or function.
const MAX_NAME: usize = 256;

type Result<T> = std::result::Result<T, PickleError>;

impl<'b> PickleMachine<'b> {
    /// A reader of the pickle at the beginning of `bytes`.
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
        PickleMachine {
            bytes,
            at: 0,
            stack: vec![],
            marks: vec![],
            memo: Default::default(),
            heap: vec![],
        }
    }

    /// Reads up to the end of the pickle: its value, and how many bytes it took.
    fn run(&mut self) -> Result<Value> {
        loop {
            let opcode = self.take(1)?[0];
            if self.heap.len() > MAX_OBJECTS {
                return Err(self.error(&format!("more than {MAX_OBJECTS} values")));
            }
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
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop_text()?, self.pop_text()?);
                    self.name(&module, &name)?;
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
                    let start = self
                        .stack
                        .len()
                        .checked_sub(n)
                        .ok_or_else(|| self.error("the stack is empty"))?;
                    let items = self.split_off(start);
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
        PickleError {
            position: self.at,
            reason: reason.into(),
        }
    }

    fn take(&mut self, n: usize) -> Result<&'b [u8]> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let end = end.ok_or_else(|| match self.bytes.len() {
            MAX_BYTES => self.error(&format!("it does not end within {MAX_BYTES} bytes")),
            _ => self.error("it ends in the middle"),
        })?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<u64> {
        let bytes = self.take(N)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// A signed integer of up to eight bytes.
    fn long(&mut self) -> Result<()> {
        let n = usize::from(self.take(1)?[0]);
        let bytes = self.take(n)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let low = wide
            .get_mut(..n)
            .ok_or_else(|| self.error(&format!("an integer of {n} bytes, at most 8")))?;
        low.copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<()> {
        if module.len() + name.len() > MAX_NAME {
            return Err(self.error(&format!("a name of more than {MAX_NAME} bytes")));
        }
        self.push(Object::Name(format!("{module}.{name}").into()));
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
        let n = rest
            .iter()
            .take(MAX_NAME)
            .position(|&b| b == b'\n')
            .ok_or_else(|| self.error("a name does not end"))?;
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

    /// What lies on the stack from `start` on. `Vec::split_off` would give it all the room that the stack has.
    fn split_off(&mut self, start: usize) -> Vec<Value> {
        self.stack.drain(start..).collect()
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(|| self.error("there is no mark"))?;
        Ok(self.split_off(mark.min(self.stack.len())))
    }

    fn pop_text(&mut self) -> Result<Rc<str>> {
        let value = self.pop()?;
        self.text_of(value).ok_or_else(|| self.error("expected a text"))
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

    fn text_of(&self, value: Value) -> Option<Rc<str>> {
        match self.object(value) {
            Some(Object::Text(t)) => Some(Rc::clone(t)),
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
        let value = *self
            .stack
            .last()
            .ok_or_else(|| self.error("the stack is empty"))?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let value = *self
            .memo
            .get(&key)
            .ok_or_else(|| self.error("it refers to a value that is not there"))?;
        self.stack.push(value);
        Ok(())
    }

    fn insert(&mut self, items: Vec<Value>) -> Result<()> {
        let target = *self
            .stack
            .last()
            .ok_or_else(|| self.error("the stack is empty"))?;
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
        let target = *self
            .stack
            .last()
            .ok_or_else(|| self.error("the stack is empty"))?;
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
}
