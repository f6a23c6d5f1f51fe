//! Results as a picture.

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Engine, Report, SpeedRow, threads};

/// Pixels of a panel.
const PANEL: (u32, u32) = (480, 300);

/// Pixels of the legend above them.
const LEGEND: u32 = 48;

/// Colours that can be told apart on white and on black.
const LLAMA: RGBColor = RGBColor(0x8b, 0x94, 0x9e);
const SAME_FILE: RGBColor = RGBColor(0x2f, 0x81, 0xf7);
const OWN_FORMAT: RGBColor = RGBColor(0x9a, 0x6b, 0xdf);
const ROOF: RGBColor = RGBColor(0xe0, 0x4f, 0x3a);
const GRID: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// Replaces the colour of all text by one that can be read on the page that has the picture.
const THEME: &str = "<style>text{fill:#1f2328}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>";

/// A bar.
struct Bar {
    colour: RGBColor,
    /// Tokens a second.
    value: f64,
    /// Of the other engine's.
    times: Option<f64>,
    /// What the machine could do.
    roof: Option<f64>,
}

/// Bars with as many bits.
struct Group {
    label: String,
    bars: Vec<Bar>,
}

/// Groups on one scale.
struct Panel {
    title: String,
    groups: Vec<Group>,
}

/// Decode, and the first of the prompts, for each number of threads.
///
/// # Errors
/// If there is nothing to draw.
pub fn svg(report: &Report) -> Result<String> {
    let panels = panels(report);
    let columns = report.roofs.len();
    let rows = panels.len().checked_div(columns).context("the report is empty")?;
    // The legend is as wide as two panels.
    let size = (PANEL.0 * columns.max(2) as u32, LEGEND + PANEL.1 * rows as u32);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let (above, below) = root.split_vertically(LEGEND);
        legend(&above)?;
        for (panel, area) in panels.iter().zip(below.split_evenly((rows, columns))) {
            panel.draw(&area)?;
        }
        root.present()?;
    }
    let (start, rest) = text.split_once('>').context("a picture begins with its size")?;
    Ok(format!("{start}>\n{THEME}{rest}"))
}

fn panels(report: &Report) -> Vec<Panel> {
    let prompt = report
        .speeds
        .first()
        .and_then(|row| row.prefill.first())
        .map(|p| p.tokens);
    let panel = |title: String, n: u16, bar: fn(&SpeedRow) -> Option<Bar>| Panel {
        title: format!("{title}, {}", threads(n)),
        groups: groups(report, n, bar),
    };
    let all_threads = || report.roofs.iter().map(|r| r.threads);
    let decode = all_threads().map(|n| panel("Decode, tokens/s".into(), n, decode));
    let prefill = prompt.into_iter().flat_map(|tokens| {
        all_threads().map(move |n| panel(format!("Prefill of {tokens}, tokens/s"), n, prefill))
    });
    decode.chain(prefill).collect()
}

/// The rows of some threads, those with as many bits together.
fn groups(report: &Report, threads: u16, bar: fn(&SpeedRow) -> Option<Bar>) -> Vec<Group> {
    let rows: Vec<&SpeedRow> = report.speeds.iter().filter(|r| r.threads == threads).collect();
    let same = rows.chunk_by(|a, b| a.bits == b.bits);
    same.map(|rows| Group {
        label: format!("{} bit ({})", rows[0].bits, rows[0].weights),
        bars: rows.iter().filter_map(|row| bar(row)).collect(),
    })
    .collect()
}

fn decode(row: &SpeedRow) -> Option<Bar> {
    Some(Bar {
        colour: colour(row),
        value: row.decode.median,
        times: row.decode_times,
        roof: Some(row.decode.median / row.roof_share),
    })
}

fn prefill(row: &SpeedRow) -> Option<Bar> {
    let prompt = row.prefill.first()?;
    Some(Bar {
        colour: colour(row),
        value: prompt.speed.median,
        times: prompt.times,
        roof: prompt.peak_share.map(|share| prompt.speed.median / share),
    })
}

fn colour(row: &SpeedRow) -> RGBColor {
    match row.engine {
        Engine::Llama => LLAMA,
        // The formats of GGUF files and of rwkvc have other names.
        Engine::Rwkvc if row.weights.starts_with("int") => OWN_FORMAT,
        Engine::Rwkvc => SAME_FILE,
    }
}

type Area<'a, 'b> = DrawingArea<SVGBackend<'a>, Shift>;

/// What the colours mean.
fn legend(area: &Area<'_, '_>) -> Result<()> {
    let style = text(16);
    let entries = [
        (LLAMA, "llama.cpp"),
        (SAME_FILE, "rwkvc, the same file"),
        (OWN_FORMAT, "rwkvc, int8 and int4 of the checkpoint"),
    ];
    let mut x = 24;
    for (colour, name) in entries {
        area.draw(&Rectangle::new([(x, 16), (x + 14, 30)], colour.filled()))?;
        area.draw(&Text::new(name, (x + 20, 30), style.clone()))?;
        x += 36 + 8 * name.chars().count() as i32;
    }
    area.draw(&PathElement::new(
        vec![(x, 23), (x + 20, 23)],
        ROOF.stroke_width(3),
    ))?;
    area.draw(&Text::new("what the machine can do", (x + 26, 30), style))?;
    Ok(())
}

/// Text that stands above its point; the theme gives it its colour.
fn text(size: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(HPos::Left, VPos::Bottom))
}

impl Panel {
    fn draw(&self, area: &Area<'_, '_>) -> Result<()> {
        /// Of a group, which is 1 wide.
        const BAR: f64 = 0.29;
        let bars = || self.groups.iter().flat_map(|g| &g.bars);
        let most = bars()
            .map(|b| b.value.max(b.roof.unwrap_or(0.0)))
            .fold(0.0, f64::max);
        // Above the highest there is room for its label.
        let (width, height) = (self.groups.len() as f64, 1.2 * most);
        let line = 0.07 * height;
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .caption(&self.title, text(18))
            .x_label_area_size(28)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..width, 0.0..height)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(5)
            .y_label_style(("sans-serif", 14).into_font())
            .y_label_formatter(&|y| format!("{y:.0}"))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.mix(0.3))
            .axis_style(GRID)
            .draw()?;
        let centred = |size| text(size).pos(Pos::new(HPos::Center, VPos::Bottom));
        for (g, group) in self.groups.iter().enumerate() {
            let middle = g as f64 + 0.5;
            for (b, bar) in group.bars.iter().enumerate() {
                let left = middle + BAR * (b as f64 - group.bars.len() as f64 / 2.0);
                let (from, to) = (left + 0.1 * BAR, left + 0.9 * BAR);
                chart.draw_series([Rectangle::new(
                    [(from, 0.0), (to, bar.value)],
                    bar.colour.filled(),
                )])?;
                if let Some(roof) = bar.roof {
                    let line = vec![(left, roof), (left + BAR, roof)];
                    chart.draw_series([PathElement::new(line, ROOF.stroke_width(3))])?;
                }
                // Not across the roof.
                let lines = if bar.times.is_some() { 2.2 } else { 1.2 };
                let above = match bar.roof {
                    Some(roof) if (bar.value..bar.value + lines * line).contains(&roof) => roof,
                    _ => bar.value,
                };
                let at = ((from + to) / 2.0, above + 0.01 * height);
                let mut label = format!("{:.0}", bar.value);
                chart.draw_series([Text::new(label.clone(), at, centred(14))])?;
                if let Some(times) = bar.times {
                    label = format!("×{times:.2}");
                    let at = (at.0, at.1 + 0.9 * line);
                    chart.draw_series([Text::new(label, at, centred(14))])?;
                }
            }
            let (x, y) = chart.backend_coord(&(middle, 0.0));
            let (left, top) = area.get_base_pixel();
            area.draw(&Text::new(
                group.label.clone(),
                (x - left, y - top + 24),
                centred(16),
            ))?;
        }
        Ok(())
    }
}
