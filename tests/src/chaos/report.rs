//! What a run of chaos says of itself: one JSON file for machines, one text for people.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// A window, as it went.
#[derive(Debug)]
pub struct Window {
    /// Seconds since the beginning.
    pub at: f64,
    /// What went wrong.
    pub faults: Vec<String>,
    /// Records of raw clients that were acknowledged meanwhile.
    pub acknowledged: u64,
    /// Milliseconds until every partition took records again, after it was over; none where that took too long.
    pub recovered_ms: Option<u64>,
}

/// A run.
#[derive(Debug, Default)]
pub struct Report {
    /// What it was drawn from.
    pub seed: u64,
    /// How long it was meant to be.
    pub minutes: f64,
    /// As they came.
    pub windows: Vec<Window>,
    /// Figures by their names.
    pub figures: Vec<(String, Value)>,
    /// What must not be.
    pub violations: Vec<String>,
}

/// Violations that are shown.
const SHOWN_MAX: usize = 40;

impl Report {
    /// Notes a figure.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.push((name.to_owned(), value.into()));
    }

    /// Whether nothing was wrong.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("chaos: {} minutes of seed {}\n\n", self.minutes, self.seed);
        for window in &self.windows {
            let faults = if window.faults.is_empty() { "quiet".to_owned() } else { window.faults.join("; ") };
            let after = window.recovered_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms"));
            text += &format!(
                "{:7.1} s  {faults}: {} acknowledged, all well {after} after\n",
                window.at, window.acknowledged
            );
        }
        text += "\n";
        for (name, value) in &self.figures {
            text += &format!("{name}: {value}\n");
        }
        let shown = self.violations.iter().take(SHOWN_MAX).map(|violation| format!("  {violation}\n"));
        text + &format!("{} violations\n{}", self.violations.len(), shown.collect::<String>())
    }

    fn json(&self) -> Value {
        let windows = self.windows.iter().map(|window| {
            json!({"at_seconds": window.at, "faults": window.faults, "acknowledged": window.acknowledged,
                   "recovered_ms": window.recovered_ms})
        });
        let figures: serde_json::Map<String, Value> = self.figures.iter().cloned().collect();
        json!({"seed": self.seed, "minutes": self.minutes, "windows": windows.collect::<Vec<_>>(),
               "figures": figures, "violations": self.violations})
    }

    /// Writes both into a folder.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.txt"), self.text())?;
        fs::write(folder.join("report.json"), format!("{:#}\n", self.json()))
    }
}
