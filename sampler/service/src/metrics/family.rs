//! Metrics as the exposition formats see them: families of samples with labels. Pure.

/// One metric name with all its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// What it says, unit included.
    pub help: &'static str,
    /// Type.
    pub kind: Kind,
    /// Samples; no two have the same labels.
    pub samples: Vec<Sample>,
}

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Quantiles of the daemon's own times.
    Summary,
    /// Buckets.
    Histogram,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// A value; its form follows the family's [`Kind`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a summary.
    Summary {
        /// Samples.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Quantile and value.
        quantiles: Vec<(f64, f64)>,
    },
    /// Of a histogram.
    Histogram(Box<Buckets>),
}

/// A histogram in both forms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Samples.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Upper bound and cumulative count, without the infinite one.
    pub classic: Vec<(f64, u64)>,
    /// Resolution of the native form: 2^schema buckets per octave.
    pub schema: i32,
    /// Values up to this are in the native form's zero bucket.
    pub zero_threshold: f64,
    /// Samples in it.
    pub zero_count: u64,
    /// Native bucket and count, in order, no empty ones.
    pub native: Vec<(i32, u64)>,
}

impl Family {
    /// A family without samples.
    pub fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// Adds a number.
    pub fn number(mut self, labels: &[(&'static str, &str)], value: f64) -> Self {
        self.push(labels, Value::Number(value));
        self
    }

    /// Adds a sample.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels
            .iter()
            .map(|&(name, value)| (name, value.to_owned()))
            .collect();
        self.samples.push(Sample { labels, value });
    }
}

/// A counter with one sample and no labels.
pub fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::new(Kind::Counter, name, help).number(&[], value as f64)
}

/// A gauge with one sample and no labels.
pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Family {
    Family::new(Kind::Gauge, name, help).number(&[], value)
}
