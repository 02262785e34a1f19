//! Whether a quantity grows: the median of the last quarter against that of the first, once the beginning is left out.
//!
//! In: all readings. Out: growth, and what of it is more than the noise within a quarter and what a quantity may take in steps.

use super::reading::{QUANTITIES, Reading, shown};
use crate::{process::MIB, statistics::Samples};

/// Share of a run that is its beginning: tables fill, pages are touched for the first time.
const BEGINNING: f64 = 0.15;
const QUARTER: f64 = 0.25;
/// What memory may grow beside the noise: an allocator takes it in steps. Over an hour a quarter of a byte for each connection.
const STEP_MIB: f64 = 1.0;

/// Of one quantity.
struct Growth {
    first: f64,
    last: f64,
    /// Between the first and the ninth decile of the first quarter.
    noise: f64,
    /// Connections from the middle of the first quarter to that of the last.
    connections: f64,
    is_memory: bool,
}

impl Growth {
    /// None if it could not be read, or not often enough.
    fn of(readings: &[Reading], quantity: usize) -> Option<Self> {
        let beginning = (readings.len() as f64 * BEGINNING) as usize;
        let kept = readings.get(beginning..)?;
        let quarter = (kept.len() as f64 * QUARTER) as usize;
        let (first, last) = (&kept[..quarter], &kept[kept.len() - quarter..]);
        let values =
            |part: &[Reading]| part.iter().map(|r| r.values[quantity]).collect::<Samples>();
        let (before, after) = (values(first), values(last));
        let middle = |part: &[Reading]| part.get(quarter / 2).map(|r| r.connections as f64);
        let growth = Self {
            first: before.median(),
            last: after.median(),
            noise: before.quantile(0.9) - before.quantile(0.1),
            connections: middle(last)? - middle(first)?,
            is_memory: QUANTITIES[quantity].ends_with("MiB"),
        };
        (!growth.difference().is_nan()).then_some(growth)
    }

    fn difference(&self) -> f64 {
        self.last - self.first
    }

    fn is_flat(&self) -> bool {
        let step = if self.is_memory { STEP_MIB } else { 0.0 };
        self.difference() <= self.noise.max(step)
    }

    fn print(&self, name: &str) {
        let verdict = if self.is_flat() { "flat" } else { "GROWS" };
        let bytes = if self.is_memory {
            let each = self.difference() * MIB / self.connections;
            format!("{each:.3}")
        } else {
            String::new()
        };
        println!(
            "{name:<16} {:>12} {:>12} {:>+10.2} {:>10} {bytes:>14}   {verdict}",
            shown(self.first),
            shown(self.last),
            self.difference(),
            shown(self.noise),
        );
    }
}

/// Prints a line for each quantity; names of those that grew.
pub fn print(readings: &[Reading]) -> Vec<&'static str> {
    println!(
        "{:<16} {:>12} {:>12} {:>10} {:>10} {:>14}",
        "median of a", "first", "last quarter", "growth", "noise", "B/connection"
    );
    let mut grown = Vec::new();
    for (quantity, name) in QUANTITIES.iter().enumerate() {
        match Growth::of(readings, quantity) {
            Some(growth) => {
                growth.print(name);
                if !growth.is_flat() {
                    grown.push(*name);
                }
            }
            None => println!("{name:<16} {:>12}", "not read"),
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A run of which each reading is `value` of its number, in every quantity.
    fn run(value: impl Fn(usize) -> f64) -> Vec<Reading> {
        let reading = |n: usize| Reading {
            at: Duration::from_secs(2 * n as u64),
            connections: 2_400 * n,
            values: [value(n); QUANTITIES.len()],
        };
        (0..400).map(reading).collect()
    }

    fn is_flat(quantity: &str, value: impl Fn(usize) -> f64) -> bool {
        let quantity = QUANTITIES.iter().position(|name| *name == quantity);
        let quantity = quantity.expect("a quantity");
        Growth::of(&run(value), quantity).expect("read").is_flat()
    }

    #[test]
    fn noise_and_a_beginning_are_no_growth() {
        assert!(is_flat("descriptors", |n| 40.0 + (n % 3) as f64));
        assert!(is_flat("RSS MiB", |n| if n < 40 { n as f64 } else { 40.0 }));
        assert!(is_flat("map entries", |n| 500.0 + (n % 7) as f64 * 20.0));
    }

    #[test]
    fn a_leak_is_growth() {
        assert!(!is_flat("descriptors", |n| 40.0 + (n / 100) as f64));
        let leak = |bytes: f64| move |n: usize| 30.0 + bytes * 2_400.0 * n as f64 / MIB;
        assert!(!is_flat("kernel MiB", leak(8.0)));
        assert!(is_flat("kernel MiB", leak(0.5)));
    }

    #[test]
    fn what_cannot_be_read_is_not_judged() {
        assert!(Growth::of(&run(|_| f64::NAN), 0).is_none());
        assert!(Growth::of(&[], 0).is_none());
    }
}
