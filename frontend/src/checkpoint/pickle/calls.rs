//! What a pickle may refer to and call: storages, and the few functions that make tensors of them.

use rwkvc_ir::DType;

use super::{MAX_RANK, Object, PickleMachine, Result, Storage, Value, View};

impl PickleMachine<'_> {
    /// `('storage', torch.BFloat16Storage, '0', 'cpu', n_elements[, view])`
    pub(super) fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let Some(&[kind, class, key, _, len, ref rest @ ..]) = self.as_tuple(id) else {
            return Err(self.error("a reference to something other than a storage"));
        };
        if rest.iter().any(|&v| v != Value::None) {
            return Err(self.error("a storage that is a part of another, as PyTorch before 0.4 wrote them"));
        }
        if self.as_text(kind) != Some("storage") {
            return Err(self.error("a reference to something other than a storage"));
        }
        let class = match self.object(class) {
            Some(Object::Name(name)) => name.clone(),
            _ => return Err(self.error("a storage without a class")),
        };
        let dtype = match &*class {
            "torch.FloatStorage" => DType::F32,
            "torch.HalfStorage" => DType::F16,
            "torch.BFloat16Storage" => DType::BF16,
            _ => {
                let known = "torch.FloatStorage, torch.HalfStorage or torch.BFloat16Storage";
                return Err(self.error(&format!("a storage is `{class}`, expected {known}")));
            }
        };
        let key = self
            .text_of(key)
            .ok_or_else(|| self.error("a storage without a key"))?;
        let len = match len {
            Value::Int(n) => usize::try_from(n).map_err(|_| self.error("a storage of negative length"))?,
            _ => return Err(self.error("a storage without a length")),
        };
        self.push(Object::Storage(Storage { key, dtype, len }));
        Ok(())
    }

    pub(super) fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let name = match self.object(callable) {
            Some(Object::Name(name)) => name.clone(),
            _ => return Err(self.error("it calls something that is not a name")),
        };
        let arguments = self
            .as_tuple(arguments)
            .ok_or_else(|| self.error("a call without arguments"))?;
        match &*name {
            "collections.OrderedDict" if arguments.is_empty() => self.push(Object::Dict(vec![])),
            "collections.OrderedDict" => {
                return Err(self.error("a dictionary made from arguments, expected an empty one"));
            }
            "torch._utils._rebuild_parameter" => {
                let data = *arguments
                    .first()
                    .ok_or_else(|| self.error("a parameter without data"))?;
                self.stack.push(data);
            }
            "torch._utils._rebuild_tensor_v2" => {
                let view = self.view(arguments)?;
                self.push(Object::Tensor(view));
            }
            _ => {
                return Err(self.error(&format!(
                    "it calls `{name}`, which is not part of a checkpoint of tensors"
                )));
            }
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
            let items = self
                .as_tuple(*v)
                .ok_or_else(|| self.error("a shape that is not a tuple"))?;
            if items.len() > MAX_RANK {
                return Err(self.error(&format!(
                    "a tensor of {} dimensions, at most {MAX_RANK}",
                    items.len()
                )));
            }
            items.iter().map(size).collect::<Result<Vec<usize>>>()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(self.error("a tensor has more or fewer strides than dimensions"));
        }
        Ok(View {
            storage: storage.clone(),
            offset: size(offset)?,
            shape,
            strides,
        })
    }
}
