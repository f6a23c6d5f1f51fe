//! What is read from a whole pickle.

use std::collections::HashSet;
use std::rc::Rc;

use super::{Object, PickleMachine, Result, Value, View};

impl PickleMachine<'_> {
    /// The tensors of a pickled dictionary, by name, and the length of the pickle.
    pub(in crate::checkpoint) fn tensors(mut self) -> Result<(Vec<(String, View)>, usize)> {
        let value = self.run()?;
        let Some(Object::Dict(dict)) = self.object(value) else {
            return Err(self.error("it does not hold a dictionary of tensors"));
        };
        let mut tensors = vec![];
        let mut names = HashSet::new();
        for &(key, value) in dict {
            let name = self
                .as_text(key)
                .ok_or_else(|| self.error("a key of the dictionary is not a text"))?;
            if !names.insert(name) {
                return Err(self.error(&format!("two tensors are named `{name}`")));
            }
            match self.object(value) {
                Some(Object::Tensor(view)) => tensors.push((name.to_string(), view.clone())),
                _ => return Err(self.error(&format!("`{name}` is not a tensor"))),
            }
        }
        Ok((tensors, self.at))
    }

    /// The texts of a pickled list, and the length of the pickle.
    pub(in crate::checkpoint) fn texts(mut self) -> Result<(Vec<Rc<str>>, usize)> {
        let value = self.run()?;
        let Some(Object::List(list)) = self.object(value) else {
            return Err(self.error("it does not hold a list"));
        };
        let text = |&v: &Value| self.text_of(v).ok_or_else(|| self.error("a key is not a text"));
        let texts = list.iter().map(text).collect::<Result<Vec<Rc<str>>>>()?;
        Ok((texts, self.at))
    }

    /// The value of `key` in a pickled dictionary, if it is true or false, and the length of the pickle.
    pub(in crate::checkpoint) fn flag(mut self, key: &str) -> Result<(Option<bool>, usize)> {
        let value = self.run()?;
        let Some(Object::Dict(dict)) = self.object(value) else {
            return Err(self.error("it does not hold a dictionary"));
        };
        let flag = dict
            .iter()
            .rev()
            .find(|(k, _)| self.as_text(*k) == Some(key))
            .and_then(|(_, v)| match v {
                Value::Bool(flag) => Some(*flag),
                _ => None,
            });
        Ok((flag, self.at))
    }

    /// Reads a pickle for its length only.
    pub(in crate::checkpoint) fn skip(mut self) -> Result<usize> {
        self.run()?;
        Ok(self.at)
    }
}
