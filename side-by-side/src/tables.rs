//! Results as tables, for a terminal and for the documentation.

use rwkvc::measure::Spread;
use rwkvc::tables::table;

use crate::report::{LoadRow, Report, SpeedRow, StartRow, threads};

/// A table in no notation yet.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// For a terminal.
pub fn text(report: &Report) -> String {
    let mut text = summary(report) + "\n";
    for part in [speeds(report), loads(report)] {
        let head: Vec<&str> = part.head.iter().map(String::as_str).collect();
        text += &(table(&head, &part.rows) + "\n");
    }
    text + &starts(report)
}

/// For the documentation, beside the chart.
pub fn markdown(report: &Report) -> String {
    let speeds = speeds(report).markdown();
    let loads = loads(report).markdown();
    format!(
        "{}\n![Tokens a second of rwkvc and llama.cpp](side-by-side.svg)\n\n{speeds}\n{loads}\n{}",
        summary(report),
        starts(report)
    )
}

impl Table {
    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = "|---".repeat(self.head.len()) + "|\n";
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

/// What was measured, and on what.
fn summary(r: &Report) -> String {
    let date = r
        .date
        .as_ref()
        .map_or(String::new(), |date| format!(" on {date}"));
    let mut text = format!(
        "{}, {:.0} million parameters, measured{date} on {}: medians of {} samples (least–most), taken in turn, of {} \
         tokens each for decode.\n",
        r.model,
        r.parameters as f64 / 1e6,
        r.machine,
        r.samples,
        r.decode_tokens
    );
    for roof in &r.roofs {
        text += &format!(
            "The roof with {}: {:.1} GB/s (least {:.1}), {:.0} GFLOP/s (least {:.0}).\n",
            threads(roof.threads),
            roof.memory.max,
            roof.memory.min,
            roof.arithmetic.max,
            roof.arithmetic.min
        );
    }
    for (name, built) in &r.engines {
        text += &format!("{name}: {built}.\n");
    }
    text
}

fn speeds(r: &Report) -> Table {
    let mut head: Vec<String> = [
        "threads",
        "engine",
        "weights",
        "MB/token",
        "decode tok/s",
        "×",
        "roof",
    ]
    .map(String::from)
    .to_vec();
    for prompt in r.speeds.first().map_or(&[][..], |row| &row.prefill) {
        head.extend([
            format!("prefill {} tok/s", prompt.tokens),
            "×".into(),
            "peak".into(),
        ]);
    }
    head.push("logits differ".into());
    let cells = |row: &SpeedRow| {
        let mut cells = vec![
            row.threads.to_string(),
            row.engine.name().into(),
            row.weights.clone(),
            format!("{:.0}", row.bytes_per_token as f64 / 1e6),
            rate(&row.decode),
            times(row.decode_times),
            percent(Some(row.roof_share)),
        ];
        for prompt in &row.prefill {
            cells.extend([
                rate(&prompt.speed),
                times(prompt.times),
                percent(prompt.peak_share),
            ]);
        }
        cells.push(
            row.difference
                .map_or(NOTHING.into(), |d| format!("{:.2} %", 100.0 * d)),
        );
        cells
    };
    Table {
        head,
        rows: r.speeds.iter().map(cells).collect(),
    }
}

fn loads(r: &Report) -> Table {
    let head = [
        "engine",
        "weights",
        "MB",
        "load ms",
        "first token ms",
        "peak memory MB, decode",
        "of the weights",
        "with prefill",
        "of the weights",
    ];
    let cells = |row: &LoadRow| {
        let share = |bytes: u64| bytes as f64 / row.weight_bytes as f64;
        let mut cells = vec![
            row.engine.name().into(),
            row.weights.clone(),
            format!("{:.0}", row.weight_bytes as f64 / 1e6),
            rate(&row.load_ms),
            rate(&row.first_token_ms),
        ];
        for peak in [row.peak_decode, row.peak_prefill] {
            cells.push(peak.map_or(NOTHING.into(), |b| format!("{:.0}", b as f64 / 1e6)));
            cells.push(percent(peak.map(share)));
        }
        cells
    };
    Table {
        head: head.map(String::from).to_vec(),
        rows: r.loads.iter().map(cells).collect(),
    }
}

fn starts(r: &Report) -> String {
    let one = |s: &StartRow| {
        format!(
            "{:.2} s with `{}` ({:.2}–{:.2})",
            s.seconds.median, s.backend, s.seconds.min, s.seconds.max
        )
    };
    let Some(first) = r.starts.first() else {
        return String::new();
    };
    let all: Vec<String> = r.starts.iter().map(one).collect();
    format!(
        "From the {} checkpoint to the first token, with nothing compiled before: {}.\n",
        first.weights,
        all.join(", ")
    )
}

/// Where there is nothing to say.
const NOTHING: &str = "–";

/// Median, least and most, with no more digits than mean something.
fn rate(s: &Spread) -> String {
    let digits = match s.median {
        m if m < 10.0 => 2,
        m if m < 100.0 => 1,
        _ => 0,
    };
    format!("{:.digits$} ({:.digits$}–{:.digits$})", s.median, s.min, s.max)
}

fn times(factor: Option<f64>) -> String {
    factor.map_or(NOTHING.into(), |f| format!("{f:.2}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or(NOTHING.into(), |s| format!("{:.0} %", 100.0 * s))
}
