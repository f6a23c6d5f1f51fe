//! Which machine this is: what a tuning was measured on, and is good for.

use rwkvc_runtime::machine::extensions;
use serde::{Deserialize, Serialize};

/// A CPU as far as speed depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The name that its maker gave it.
    pub cpu: String,
    /// Cores that a process may use.
    pub cores: usize,
    /// What it can do, by LLVM's names.
    pub extensions: Vec<String>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        // Other systems keep it elsewhere; what the CPU can do tells most machines apart there.
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Machine {
            cpu: name(&info),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            extensions: extensions().into_iter().map(String::from).collect(),
        }
    }

    /// What is different here, in words; nothing if it is the same machine.
    pub fn difference(&self, here: &Machine) -> Option<String> {
        if self.cpu != here.cpu {
            return Some(format!("on `{}`, and this is `{}`", self.cpu, here.cpu));
        }
        if self.cores != here.cores {
            return Some(format!("with {} cores, and here are {}", self.cores, here.cores));
        }
        (self.extensions != here.extensions).then(|| "on a CPU with other instructions".into())
    }
}

/// The first CPU's name in Linux's list: what x86 says of itself, or the numbers that Arm's makers and models have.
fn name(info: &str) -> String {
    let field = |wanted: &str| {
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        lines
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| value)
    };
    match (field("model name"), field("CPU implementer"), field("CPU part")) {
        (Some(name), ..) => name.to_owned(),
        (None, Some(maker), Some(part)) => format!("Arm maker {maker} part {part}"),
        _ => std::env::consts::ARCH.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_makers() {
        let x86 = "processor\t: 0\nvendor_id\t: X\nmodel name\t: A Processor @ 2:1 GHz\n\nprocessor: 1\n";
        assert_eq!(name(x86), "A Processor @ 2:1 GHz");
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(name(arm), "Arm maker 0x41 part 0xd0c");
        assert_eq!(name("\n:\n"), std::env::consts::ARCH);
    }

    #[test]
    fn differences_are_named() {
        let here = Machine::here();
        assert_eq!(here.difference(&here), None);
        let said = |change: fn(&mut Machine)| {
            let mut other = here.clone();
            change(&mut other);
            other.difference(&here).expect("another machine")
        };
        assert!(said(|m| m.cpu = "Z80".into()).starts_with("on `Z80`, and this is `"));
        assert!(said(|m| m.cores = 1000).starts_with("with 1000 cores, and here are "));
        assert!(said(|m| m.extensions.push("magic".into())).contains("other instructions"));
    }
}
