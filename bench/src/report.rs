//! Ratios, as a table for people and JSON for machines.

use serde_json::{Value, json};

/// Which side of the goal is good.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Goal {
    fn reached(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

/// One measured figure: the ratio of each interleaved pair.
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// A against B, pair by pair.
    pub ratios: Vec<f64>,
    /// What the issue asks for.
    pub goal: Goal,
    /// The absolute figures of both sides, for the reader only.
    pub detail: String,
}

impl Figure {
    /// The median of the pairs.
    pub fn median(&self) -> f64 {
        median(&self.ratios)
    }

    fn json(&self) -> Value {
        let (kind, goal) = match self.goal {
            Goal::AtLeast(least) => ("at_least", least),
            Goal::AtMost(most) => ("at_most", most),
        };
        json!({"figure": self.name, "median": self.median(), "ratios": self.ratios, kind: goal,
               "reached": self.goal.reached(self.median()), "detail": self.detail})
    }
}

/// The middle of `values`, 0 where there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Prints the table's head.
pub fn print_head() {
    println!("{:<72} {:>8} {:>17} {:>8}", "figure", "median", "min .. max", "goal");
}

/// Prints rows of the table.
pub fn print(figures: &[Figure]) {
    for figure in figures {
        let low = figure.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let high = figure.ratios.iter().copied().fold(0.0, f64::max);
        let (sign, goal) = match figure.goal {
            Goal::AtLeast(least) => (">=", least),
            Goal::AtMost(most) => ("<=", most),
        };
        let mark = if figure.goal.reached(figure.median()) { "" } else { "  not reached" };
        println!(
            "{:<72} {:>8.2} {low:>8.2} ..{high:>6.2} {sign:>4} {goal:.2}{mark}\n    {}",
            figure.name,
            figure.median(),
            figure.detail
        );
    }
}

/// The figures as one JSON document.
pub fn document(figures: &[Figure]) -> String {
    let rows: Vec<Value> = figures.iter().map(Figure::json).collect();
    format!("{:#}", json!({"figures": rows}))
}
