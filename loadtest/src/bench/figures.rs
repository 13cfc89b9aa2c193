//! All readings of a run, and their medians.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::meter::{Spent, micros_each};

/// One line of a table: what was measured, with a series of readings for each column.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Which table it belongs to, such as `limits`.
    pub(crate) section: String,
    /// What was measured.
    pub(crate) name: String,
    /// Each column with its readings, one a round.
    pub(crate) columns: Vec<(String, Vec<f64>)>,
}

/// A case that did not come to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Which.
    pub(crate) case: String,
    /// In which round.
    pub(crate) round: usize,
    /// Why.
    pub(crate) error: String,
}

/// Everything that a run found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// The day, such as `2026-11-21`.
    pub(crate) date: String,
    /// Whether the windows were the short ones.
    pub(crate) quick: bool,
    /// What it ran on, such as `2 cores of …`.
    pub(crate) machine: Vec<String>,
    /// What took part, each with its version.
    pub(crate) versions: Vec<String>,
    /// How things were set up, each a sentence.
    pub(crate) settings: Vec<String>,
    /// The readings, in the order in which they first came.
    pub(crate) rows: Vec<Row>,
    /// What else is to be said of how it went.
    #[serde(default)]
    pub(crate) remarks: Vec<String>,
    /// What failed.
    pub(crate) failures: Vec<Failure>,
}

impl Figures {
    /// Adds a reading.
    pub(crate) fn note(&mut self, section: &str, name: &str, column: &str, reading: f64) {
        let found = self
            .rows
            .iter()
            .position(|row| row.section == section && row.name == name);
        let at = found.unwrap_or_else(|| {
            self.rows.push(Row {
                section: section.to_owned(),
                name: name.to_owned(),
                columns: Vec::new(),
            });
            self.rows.len() - 1
        });
        let columns = &mut self.rows[at].columns;
        match columns.iter_mut().find(|(name, _)| name == column) {
            Some((_, readings)) => readings.push(reading),
            None => columns.push((column.to_owned(), vec![reading])),
        }
    }

    /// Adds what `count` operations took: the rate, and the processor time of each, whole and of the load.
    pub(crate) fn note_work(&mut self, section: &str, name: &str, count: u64, spent: &Spent) {
        self.note(section, name, "per second", count as f64 / spent.seconds);
        self.note(section, name, "CPU µs", micros_each(spent.machine, count));
        self.note(section, name, "load µs", micros_each(spent.own, count));
    }

    /// How many rounds there were.
    pub(crate) fn rounds(&self) -> usize {
        let series = self.rows.iter().flat_map(|row| &row.columns);
        series.map(|(_, readings)| readings.len()).max().unwrap_or(0)
    }

    /// The median of a series, where there is one.
    pub(crate) fn median(&self, section: &str, name: &str, column: &str) -> Option<f64> {
        self.readings(section, name, column).map(median)
    }

    /// A series, where there is one.
    pub(crate) fn readings(&self, section: &str, name: &str, column: &str) -> Option<&[f64]> {
        let mut rows = self.rows.iter();
        let row = rows.find(|row| row.section == section && row.name == name)?;
        row.series(column)
    }

    /// The rows of a table.
    pub(crate) fn section<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.section == section)
    }

    /// Writes them as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// Reads what [`Self::write`] wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }
}

impl Row {
    /// The readings in a column.
    pub(crate) fn series(&self, column: &str) -> Option<&[f64]> {
        let (_, readings) = self.columns.iter().find(|(name, _)| name == column)?;
        Some(readings)
    }
}

/// The middle one; of an even number, the lower of the two.
pub(crate) fn median(readings: &[f64]) -> f64 {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_one_series_come_together_and_survive_the_file() {
        let mut figures = Figures::default();
        for reading in [3.0, 1.0, 2.0] {
            figures.note("limits", "one", "per second", reading);
            figures.note("limits", "other", "per second", reading * 10.0);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/bench.json");
        figures.write(&path).unwrap();
        let figures = Figures::read(&path).unwrap();
        assert_eq!((figures.section("limits").count(), figures.rounds()), (2, 3));
        assert_eq!(figures.median("limits", "one", "per second"), Some(2.0));
        assert_eq!(figures.median("limits", "one", "CPU µs"), None);
        assert_eq!(median(&[4.0, 2.0]), 2.0);
    }
}
