//! What was handed out and not taken back, so that handles and addresses can be checked.

use crate::gpu::driver::{Address, Event, Function, Graph, Module, Resource};
use crate::gpu::error::GpuError;
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Default)]
pub(super) struct Live {
    /// Start and length.
    memory: BTreeMap<u64, u64>,
    modules: HashSet<Module>,
    functions: HashMap<Function, Module>,
    graphs: HashSet<Graph>,
    events: HashSet<Event>,
}

impl Live {
    pub(super) fn add_memory(&mut self, address: Address, bytes: u64) {
        self.memory.insert(address.0, bytes);
    }

    pub(super) fn add_module(&mut self, module: Module) {
        self.modules.insert(module);
    }

    pub(super) fn add_function(&mut self, function: Function, module: Module) {
        self.functions.insert(function, module);
    }

    pub(super) fn add_graph(&mut self, graph: Graph) {
        self.graphs.insert(graph);
    }

    pub(super) fn add_event(&mut self, event: Event) {
        self.events.insert(event);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, resource: Resource) -> bool {
        match resource {
            Resource::Module(module) => {
                self.functions.retain(|_, of| *of != module);
                self.modules.remove(&module)
            }
            Resource::Memory(address) => self.memory.remove(&address.0).is_some(),
            Resource::Graph(graph) => self.graphs.remove(&graph),
            Resource::Event(event) => self.events.remove(&event),
        }
    }

    /// Checks that bytes lie within one piece of memory.
    pub(super) fn range(&self, call: &'static str, at: Address, bytes: u64) -> Result<(), GpuError> {
        let piece = self.memory.range(..=at.0).next_back();
        let is_within = piece.is_some_and(|(start, len)| {
            let offset = at.0 - start;
            offset.checked_add(bytes).is_some_and(|end| end <= *len)
        });
        if is_within {
            return Ok(());
        }
        Err(GpuError::Range {
            call,
            address: at.0,
            bytes,
        })
    }

    pub(super) fn module(&self, module: Module) -> Result<(), GpuError> {
        known("function", self.modules.contains(&module))
    }

    pub(super) fn function(&self, call: &'static str, function: Function) -> Result<(), GpuError> {
        known(call, self.functions.contains_key(&function))
    }

    pub(super) fn graph(&self, graph: Graph) -> Result<(), GpuError> {
        known("replay", self.graphs.contains(&graph))
    }

    pub(super) fn event(&self, call: &'static str, event: Event) -> Result<(), GpuError> {
        known(call, self.events.contains(&event))
    }
}

fn known(call: &'static str, is_known: bool) -> Result<(), GpuError> {
    if is_known {
        Ok(())
    } else {
        Err(GpuError::Handle { call })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_within_one_piece() {
        let mut live = Live::default();
        live.add_memory(Address(1024), 256);
        live.add_memory(Address(1280), 16);
        let range = |at, bytes| {
            live.range("upload", Address(at), bytes)
                .map_err(|e| e.to_string())
        };
        for (at, bytes) in [(1024, 256), (1024, 0), (1279, 1), (1280, 16), (1296, 0)] {
            assert_eq!(range(at, bytes), Ok(()), "{at} {bytes}");
        }
        for (at, bytes) in [(1023, 1), (1024, 257), (1279, 2), (1296, 1), (1030, u64::MAX)] {
            let expected =
                format!("upload: {bytes} bytes at {at:#x} are not within any memory of the device");
            assert_eq!(range(at, bytes), Err(expected));
        }
    }

    #[test]
    fn functions_go_with_their_module() {
        let mut live = Live::default();
        live.add_module(Module(1));
        live.add_function(Function(2), Module(1));
        assert!(live.function("occupancy", Function(2)).is_ok());
        assert!(live.remove(Resource::Module(Module(1))));
        assert!(!live.remove(Resource::Module(Module(1))));
        let error = live.function("occupancy", Function(2)).expect_err("it is gone");
        assert_eq!(
            error.to_string(),
            "occupancy: the handle is not of this driver, or was released"
        );
    }
}
