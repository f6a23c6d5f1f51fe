//! Filetests: comments that say what to do, then IR.
//!
//! ```text
//! ; test passes cse, dce
//! ; Of equal ops on equal operands only the first is computed.
//! func @f(…) …
//! ```
//!
//! | line | meaning |
//! |---|---|
//! | `; test WHAT` | what to do: `passes NAME, NAME` or `run` |
//! | `; fuel N` | at most so many rewrites |
//! | `; SETTING VALUE` | what a pass is told: `; weights int8` |
//! | `; unchanged` | the passes must leave the graph as it is |
//! | `; tolerance T` | how far results may be from the reference |
//! | `; sizes A=1 B=40` | read the text with `$A` and `$B` replaced; each such line is a test |
//!
//! Other comments are for people, and become part of the documentation.

use std::path::Path;

use rwkvc_passes::pipeline;
use rwkvc_passes::settings::Settings;

use crate::tolerance::Tolerance;

/// One filetest.
#[derive(Clone, Debug, Default)]
pub struct FileTest {
    /// The name of the file, without its ending.
    pub name: String,
    /// What to do.
    pub test: String,
    /// The most rewrites.
    pub fuel: Option<u64>,
    /// What passes are told.
    pub settings: Settings,
    /// Whether nothing may happen.
    pub unchanged: bool,
    /// How far results may be from the reference.
    pub tolerance: Option<Tolerance>,
    /// What it shows, for people.
    pub prose: String,
    /// The lines of the header, as they are.
    pub header: String,
    /// The IR.
    pub body: String,
    sizes: Vec<Vec<(String, String)>>,
}

impl FileTest {
    /// Reads a file.
    ///
    /// # Panics
    /// If it cannot be read or its header makes no sense.
    pub fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::parse(&name, &text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Every file of a folder with this ending, by name.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub fn read_all(folder: &Path, ending: &str) -> Vec<Self> {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = entries
            .map(|e| e.expect("an entry of a folder").path())
            .filter(|p| p.extension().is_some_and(|e| e == ending))
            .collect();
        paths.sort();
        paths.iter().map(|p| Self::read(p)).collect()
    }

    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut file = FileTest {
            name: name.into(),
            ..FileTest::default()
        };
        let mut prose = vec![];
        let mut rest = text;
        while let Some((line, after)) = rest.split_once('\n')
            && let Some(comment) = line.strip_prefix(';')
        {
            rest = after;
            file.header += line;
            file.header.push('\n');
            let comment = comment.trim();
            let (word, argument) = comment.split_once(' ').unwrap_or((comment, ""));
            match word {
                "test" => file.test = argument.into(),
                "fuel" => file.fuel = Some(argument.parse().map_err(|e| format!("fuel: {e}"))?),
                "unchanged" => file.unchanged = true,
                "tolerance" => file.tolerance = Some(argument.parse()?),
                "sizes" => {
                    let pair = |p: &str| p.split_once('=').map(|(n, v)| (format!("${n}"), v.to_owned()));
                    let pairs: Option<Vec<_>> = argument.split_whitespace().map(pair).collect();
                    file.sizes.push(pairs.ok_or("sizes, expected `NAME=NUMBER …`")?);
                }
                _ => match pipeline::settings().find(|row| row.name == word) {
                    Some(row) => {
                        let value = (row.read)(argument).map_err(|e| format!("{word}: {e}"))?;
                        file.settings.insert(value);
                    }
                    None => prose.push(comment),
                },
            }
        }
        file.prose = prose.join(" ");
        file.body = rest.into();
        Ok(file)
    }

    /// The passes to run, if the test is `passes`.
    pub fn passes(&self) -> Option<Vec<&str>> {
        let names = self.test.strip_prefix("passes ")?;
        Some(names.split(',').map(str::trim).collect())
    }

    /// What to call it and the IR, for each line of sizes; one without any if there are none.
    pub fn instances(&self) -> Vec<(String, String)> {
        if self.sizes.is_empty() {
            return vec![(self.name.clone(), self.body.clone())];
        }
        let instance = |sizes: &Vec<(String, String)>| {
            let (mut name, mut text) = (self.name.clone(), self.body.clone());
            for (variable, size) in sizes {
                name += &format!(" {variable}={size}");
                text = text.replace(variable, size);
            }
            (name, text)
        };
        self.sizes.iter().map(instance).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let text = "; test passes cse, dce\n; fuel 3\n; What it shows,\n; in two lines.\nfunc\n";
        let file = FileTest::parse("x", text).expect("a header");
        assert_eq!(file.passes(), Some(vec!["cse", "dce"]));
        assert_eq!((file.fuel, file.unchanged), (Some(3), false));
        assert_eq!(file.prose, "What it shows, in two lines.");
        assert_eq!(file.body, "func\n");
        assert_eq!(file.header + &file.body, text);
    }

    #[test]
    fn each_line_of_sizes_is_an_instance() {
        let text = "; test run\n; tolerance exact\n; sizes C=1 H=2\n; sizes C=3 H=4\n[$C,$H]\n";
        let file = FileTest::parse("x", text).expect("a header");
        assert_eq!(file.tolerance, Some(Tolerance::Exact));
        assert_eq!(
            file.instances(),
            [
                ("x $C=1 $H=2".to_owned(), "[1,2]\n".to_owned()),
                ("x $C=3 $H=4".to_owned(), "[3,4]\n".to_owned())
            ]
        );
    }

    #[test]
    fn directives_that_make_no_sense_are_refused() {
        for line in ["; fuel many", "; tolerance small", "; sizes 3"] {
            assert!(FileTest::parse("x", &format!("{line}\n")).is_err(), "{line}");
        }
    }
}
