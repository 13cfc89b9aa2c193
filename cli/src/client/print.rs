//! Standard output: JSON lines for programs, aligned text for people.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use crate::exit::{Code, Result};

/// Writes to standard output. A reader that goes away ends the command, and is no panic.
pub(crate) struct Printer {
    json: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<()> {
        Ok(writeln!(io::stdout(), "{line}")?)
    }

    pub(crate) fn json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::from)?;
        self.line(text)
    }

    /// The value, or what it is to a person.
    pub(crate) fn json_or(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        match self.json {
            true => self.json(value),
            false => self.line(text()),
        }
    }

    /// What is known of one thing, a line each: a name, and what is said under it, if anything is.
    pub(crate) fn fields(
        &mut self,
        fields: impl IntoIterator<Item = (&'static str, Option<String>)>,
    ) -> Result<()> {
        for (name, value) in fields {
            if let Some(value) = value {
                self.line(format_args!("{name:<9} {value}"))?;
            }
        }
        Ok(())
    }

    /// All values, one a line; or a table of them, or why there is none.
    pub(crate) fn list<T: Serialize>(
        &mut self,
        values: &[T],
        lines: Vec<String>,
        none: &str,
    ) -> Result<Code> {
        if self.json {
            for value in values {
                self.json(value)?;
            }
        } else if values.is_empty() {
            self.line(none)?;
        } else {
            for line in lines {
                self.line(line)?;
            }
        }
        Ok(Code::Done)
    }
}

/// Aligns rows below their headings.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut all = vec![headings.iter().map(|&heading| heading.to_owned()).collect()];
    all.extend(rows);
    let width_of = |column: usize| {
        let cells = all.iter().filter_map(|row: &Vec<String>| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width_of).collect();
    all.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["ä".to_owned(), "1".to_owned()],
            vec!["longer".to_owned(), String::new()],
        ];
        assert_eq!(table(&["A", "BB"], rows), ["A       BB", "ä       1", "longer"]);
    }
}
