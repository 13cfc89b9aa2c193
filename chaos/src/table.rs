//! A small table, for a page and for a terminal.

use std::fmt::Write;

/// To which side a column leans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lean {
    Left,
    Right,
}

/// A table whose rows are as long as its head.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<(&'static str, Lean)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns, without rows.
    pub(crate) fn of(head: &[(&'static str, Lean)]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. What it lacks is empty, what it has too much is left out.
    pub(crate) fn push(&mut self, mut row: Vec<String>) {
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    /// In Markdown.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = String>| {
            cells.fold("|".to_owned(), |mut line, cell| {
                line.push(' ');
                line.push_str(&cell);
                line.push_str(" |");
                line
            })
        };
        let mut text = line(&mut self.head.iter().map(|(name, _)| (*name).to_owned()));
        text.push('\n');
        text.push('|');
        for (_, lean) in &self.head {
            text.push_str(if *lean == Lean::Left { "---|" } else { "---:|" });
        }
        text.push('\n');
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(|cell| cell.replace('|', "\\|"))));
            text.push('\n');
        }
        text
    }

    /// In columns of even width, without lines.
    pub(crate) fn plain(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells
                .chain([self.head[column].0.chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let head = self.head.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &width), (_, lean)) in row.iter().zip(&widths).zip(&self.head) {
                // Writing to a string does not fail.
                let _ = match lean {
                    Lean::Left => write!(line, "{cell:<width$}  "),
                    Lean::Right => write!(line, "{cell:>width$}  "),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::of(&[("what", Lean::Left), ("n", Lean::Right)]);
        table.push(vec!["a | b".to_owned(), "1".to_owned()]);
        table.push(vec!["längst".to_owned(), "1,234".to_owned()]);
        table.push(vec!["short".to_owned()]);
        table
    }

    #[test]
    fn markdown_keeps_its_columns_whatever_a_cell_says() {
        assert_eq!(
            table().markdown(),
            "| what | n |\n|---|---:|\n| a \\| b | 1 |\n| längst | 1,234 |\n| short |  |\n"
        );
    }

    #[test]
    fn plain_columns_are_even() {
        assert_eq!(
            table().plain(),
            "what        n\na | b       1\nlängst  1,234\nshort\n"
        );
    }
}
