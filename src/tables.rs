//! Tables for people.

/// Right-aligned columns, the first left-aligned, under a head.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count());
        cells.chain([head[c].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(c, (cell, &w))| {
                if c == 0 {
                    format!("{cell:<w$}")
                } else {
                    format!("{cell:>w$}")
                }
            })
            .collect();
        padded.join("  ").trim_end().to_string() + "\n"
    };
    let mut text = line(head.to_vec());
    text += &line(
        widths
            .iter()
            .map(|&w| &"────────────────────────────────────────────────────────────"[..3 * w.min(60)])
            .collect(),
    );
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}
