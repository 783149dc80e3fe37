//! Figures as people and programs read them: median, 95 % interval of the median, extremes.

use serde_json::{Value, json};

/// One row of figures, all of one unit.
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub values: Vec<f64>,
}

impl Row {
    pub fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Row {
        Row { name: name.into(), unit, values }
    }

    /// One figure beside another, round by round: whatever else the machine did, it did to both.
    pub fn beside(name: impl Into<String>, ours: &[f64], theirs: &[f64]) -> Row {
        Row::new(name, "times", ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
    }

    pub fn median(&self) -> f64 {
        at(&self.sorted(), 0.5)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }
}

fn at(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The ranks between which the median lies in 95 of 100 runs, by the binomial distribution's normal form.
fn interval(sorted: &[f64]) -> (f64, f64) {
    let n = sorted.len() as f64;
    let spread = 0.98 / n.sqrt();
    (at(sorted, 0.5 - spread), at(sorted, 0.5 + spread))
}

pub fn print(title: &str, rows: &[Row]) {
    println!("\n{title}");
    println!("{:44} {:>10} {:>23} {:>10} {:>10} {:>5}", "", "median", "95 % of medians", "p99", "least", "n");
    let mut all = Vec::new();
    for row in rows {
        let sorted = row.sorted();
        let (low, high) = interval(&sorted);
        let (median, p99, least) = (at(&sorted, 0.5), at(&sorted, 0.99), at(&sorted, 0.0));
        println!(
            "{:44} {median:>10.2} {low:>11.2} {high:>11.2} {p99:>10.2} {least:>10.2} {:>5}  {}",
            row.name,
            sorted.len(),
            row.unit
        );
        all.push(json!({
            "name": row.name, "unit": row.unit, "median": median, "low": low, "high": high, "p99": p99, "n": sorted.len(),
        }));
    }
    println!("{}", Value::from(all));
}
