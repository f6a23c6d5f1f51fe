//! The command line.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Parser, ValueEnum};

/// Measures rwkvc and llama.cpp in turn, on the same checkpoint: decode, prefill, loading and memory, at 16, 8 and 4 bits.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "side-by-side",
    version,
    after_help = "`scripts/side-by-side` builds all that this needs, runs it and updates the documentation.\n\
        Results go to standard output, everything else to standard error."
)]
pub struct Cli {
    /// The checkpoint, with weights of 16 bits and heads of 64 channels
    #[arg(required_unless_present = "from")]
    pub model: Option<PathBuf>,
    /// Show the results in this file, and measure nothing
    #[arg(long, value_name = "JSON", conflicts_with = "model")]
    pub from: Option<PathBuf>,
    /// What to measure, and how often
    #[command(flatten)]
    pub plan: Plan,
    /// The programs
    #[command(flatten)]
    pub programs: Programs,
    /// The day, for the documentation
    #[arg(long, value_name = "DATE")]
    pub date: Option<String>,
    /// Also write side-by-side.json, .svg and .md into this folder
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables
    Text,
    /// One JSON document
    Json,
}

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// Numbers of threads, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1,2",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Vec<u16>,
    /// Formats, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "FORMATS",
        default_value = "bf16,q8_0,q4_k_m"
    )]
    pub weights: Vec<Weights>,
    /// Samples of each rate, taken in turn
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub samples: u16,
    /// Times that a file is opened, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub loads: u16,
    /// Tokens of a sample of decode
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub decode: u16,
    /// Lengths of prompts, separated by commas; the first one is drawn
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "512,128",
        value_parser = clap::value_parser!(u16).range(1..=2048))]
    pub prefill: Vec<u16>,
}

/// A format of GGUF files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// 16 bits
    #[value(name = "bf16")]
    Bf16,
    /// 8 bits
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits, of some matrices more
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl Weights {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Weights::Bf16 => "bf16",
            Weights::Q8_0 => "q8_0",
            Weights::Q4_0 => "q4_0",
            Weights::Q4KM => "q4_k_m",
        }
    }

    /// Bits of most weights.
    pub fn bits(self) -> u8 {
        match self {
            Weights::Bf16 => 16,
            Weights::Q8_0 => 8,
            Weights::Q4_0 | Weights::Q4KM => 4,
        }
    }

    /// What rwkvc makes of the original checkpoint where it has a format of its own with about as many bits.
    pub fn own(self) -> Option<&'static str> {
        match self {
            Weights::Bf16 => None,
            Weights::Q8_0 => Some("int8"),
            Weights::Q4_0 | Weights::Q4KM => Some("int4"),
        }
    }
}

/// Where the programs are, and what they write.
#[derive(Clone, Debug, Args)]
pub struct Programs {
    /// Default: beside this program
    #[arg(long, value_name = "FILE")]
    pub rwkvc: Option<PathBuf>,
    /// Default: beside this program
    #[arg(long, value_name = "FILE")]
    pub rwkvc_worker: Option<PathBuf>,
    /// Default: beside this program
    #[arg(long, value_name = "FILE")]
    pub llama_worker: Option<PathBuf>,
    /// Where the converted and compiled files go
    #[arg(long, value_name = "FOLDER", default_value = "target/side-by-side")]
    pub work: PathBuf,
}

impl Plan {
    /// Refuses to measure something twice.
    ///
    /// # Errors
    /// Names the option.
    pub fn check(&self) -> Result<()> {
        fn twice<T: PartialEq>(items: &[T]) -> bool {
            items
                .iter()
                .enumerate()
                .any(|(i, item)| items[..i].contains(item))
        }
        let bits: Vec<u8> = self.weights.iter().map(|w| w.bits()).collect();
        match () {
            () if twice(&self.threads) => bail!("--threads has a number twice"),
            () if twice(&bits) => {
                bail!("--weights has two formats with as many bits, which one chart cannot show")
            }
            () if twice(&self.prefill) => bail!("--prefill has a length twice"),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, String> {
        Cli::try_parse_from([&["side-by-side"], args].concat()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_model_is_all_that_is_needed() {
        let cli = parse(&["m.pth"]).expect("a command line");
        assert_eq!(cli.plan.threads, [1, 2]);
        assert_eq!(cli.plan.weights, [Weights::Bf16, Weights::Q8_0, Weights::Q4KM]);
        assert_eq!(cli.plan.prefill, [512, 128]);
        assert_eq!(cli.format, Format::Text);
        cli.plan.check().expect("the default is fine");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (args, says) in [
            (&[][..], "required"),
            (&["m", "--from", "r.json"], "cannot be used with"),
            (&["m", "--threads", "0"], "0 is not in 1..=1024"),
            (&["m", "--decode", "0"], "0 is not in 1.."),
            (&["m", "--prefill", "4096"], "4096 is not in 1..=2048"),
            (&["m", "--samples", "0"], "0 is not in 1..=1000"),
            (&["m", "--weights", "f16"], "invalid value 'f16'"),
        ] {
            let error = parse(args).map(|_| ()).expect_err("refused");
            assert!(error.contains(says), "{args:?}: {error}");
        }
        for (args, says) in [
            (["m", "--threads", "2,2"], "--threads has a number twice"),
            (
                ["m", "--weights", "q4_0,q4_k_m"],
                "--weights has two formats with as many bits",
            ),
            (["m", "--prefill", "8,9,8"], "--prefill has a length twice"),
        ] {
            let plan = parse(&args).expect("each word is fine").plan;
            let error = plan.check().expect_err("refused").to_string();
            assert!(error.starts_with(says), "{args:?}: {error}");
        }
    }
}
