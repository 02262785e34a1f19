//! Protobuf exposition, length-delimited. Pure.
//!
//! Input: families. Output: bytes, and native histograms read back from them. Histograms show both forms: native ones
//! exist in this exposition only.

use prost::Message;

use super::family::{Buckets, Family, Kind, Sample, Value};

/// The messages that the build makes of `proto/exposition.proto`.
mod wire {
    include!(concat!(env!("OUT_DIR"), "/io.prometheus.client.rs"));
}

/// Content type of [`render`].
pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// All families, each behind its length. A family without samples is left out.
pub fn render(families: &[Family]) -> Vec<u8> {
    let filled = families.iter().filter(|family| !family.samples.is_empty());
    filled
        .flat_map(|family| to_wire(family).encode_length_delimited_to_vec())
        .collect()
}

fn to_wire(family: &Family) -> wire::MetricFamily {
    let kind = match family.kind {
        Kind::Counter => wire::MetricType::Counter,
        Kind::Gauge => wire::MetricType::Gauge,
        Kind::Summary => wire::MetricType::Summary,
        Kind::Histogram => wire::MetricType::Histogram,
    };
    wire::MetricFamily {
        name: Some(family.name.to_owned()),
        help: Some(family.help.to_owned()),
        r#type: Some(kind.into()),
        metric: family
            .samples
            .iter()
            .map(|sample| metric(family.kind, sample))
            .collect(),
    }
}

fn metric(kind: Kind, sample: &Sample) -> wire::Metric {
    let labels = sample.labels.iter();
    let label = labels.map(|(name, value)| wire::LabelPair {
        name: Some((*name).to_owned()),
        value: Some(value.clone()),
    });
    let metric = wire::Metric {
        label: label.collect(),
        ..wire::Metric::default()
    };
    match &sample.value {
        Value::Number(value) if kind == Kind::Counter => wire::Metric {
            counter: Some(wire::Counter {
                value: Some(*value),
            }),
            ..metric
        },
        Value::Number(value) => wire::Metric {
            gauge: Some(wire::Gauge {
                value: Some(*value),
            }),
            ..metric
        },
        Value::Summary {
            count,
            sum,
            quantiles,
        } => {
            let quantile = quantiles.iter().map(|&(quantile, value)| wire::Quantile {
                quantile: Some(quantile),
                value: Some(value),
            });
            let summary = wire::Summary {
                sample_count: Some(*count),
                sample_sum: Some(*sum),
                quantile: quantile.collect(),
            };
            wire::Metric {
                summary: Some(summary),
                ..metric
            }
        }
        Value::Histogram(buckets) => wire::Metric {
            histogram: Some(histogram(buckets)),
            ..metric
        },
    }
}

fn histogram(buckets: &Buckets) -> wire::Histogram {
    let infinite = (f64::INFINITY, buckets.count);
    let classic = buckets.classic.iter().copied().chain([infinite]);
    let (positive_span, positive_delta) = spans(&buckets.native);
    wire::Histogram {
        sample_count: Some(buckets.count),
        sample_sum: Some(buckets.sum),
        bucket: classic
            .map(|(bound, below)| wire::Bucket {
                cumulative_count: Some(below),
                upper_bound: Some(bound),
            })
            .collect(),
        schema: Some(buckets.schema),
        zero_threshold: Some(buckets.zero_threshold),
        zero_count: Some(buckets.zero_count),
        positive_span,
        positive_delta,
    }
}

/// Runs of used buckets, and each bucket's count as the difference to the one before it.
fn spans(native: &[(i32, u64)]) -> (Vec<wire::BucketSpan>, Vec<i64>) {
    let mut spans: Vec<wire::BucketSpan> = Vec::new();
    let mut deltas = Vec::with_capacity(native.len());
    let (mut next, mut before) = (0_i32, 0_i64);
    for &(index, count) in native {
        match spans.last_mut() {
            Some(span) if index == next => span.length = span.length.map(|length| length + 1),
            _ => spans.push(wire::BucketSpan {
                offset: Some(index - next),
                length: Some(1),
            }),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count.saturating_sub(before));
        (next, before) = (index + 1, count);
    }
    if spans.is_empty() {
        // A span of no length tells an empty native histogram from one that is classic only.
        spans.push(wire::BucketSpan {
            offset: Some(0),
            length: Some(0),
        });
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Undoes [`spans`] as a server does.
    fn counts(spans: &[wire::BucketSpan], deltas: &[i64]) -> Vec<(i32, i64)> {
        let (mut index, mut count, mut deltas, mut counts) = (0, 0, deltas.iter(), Vec::new());
        for span in spans {
            index += span.offset();
            for _ in 0..span.length() {
                count += deltas.next().expect("a delta per bucket");
                counts.push((index, count));
                index += 1;
            }
        }
        assert!(deltas.next().is_none());
        counts
    }

    #[test]
    fn spans_give_the_buckets_back() {
        for native in [
            vec![],
            vec![(-90, 4)],
            vec![(-90, 4), (-89, 9), (-88, 1)],
            vec![(-5, 1), (-4, 1), (-1, 7), (0, 7), (12, 3)],
        ] {
            let (spans, deltas) = spans(&native);
            let expected: Vec<(i32, i64)> = native
                .iter()
                .map(|&(index, count)| (index, count as i64))
                .collect();
            assert_eq!(counts(&spans, &deltas), expected);
            assert!(!spans.is_empty());
        }
    }

    #[test]
    fn families_read_back() {
        let buckets = Buckets {
            count: 3,
            sum: 0.5,
            classic: vec![(0.1, 1)],
            schema: 4,
            zero_threshold: 0.1,
            zero_count: 1,
            native: vec![(-3, 2)],
        };
        let mut histogram = Family::new(Kind::Histogram, "h_seconds", "Times.");
        histogram.push(&[("stream", "s")], Value::Histogram(Box::new(buckets)));
        let bytes = render(&[
            Family::new(Kind::Counter, "c_total", "Count.").number(&[], 5.0),
            Family::new(Kind::Gauge, "none", "x"),
            histogram,
        ]);
        let mut rest = bytes.as_slice();
        let mut families = Vec::new();
        while !rest.is_empty() {
            families
                .push(wire::MetricFamily::decode_length_delimited(&mut rest).expect("a family"));
        }
        assert_eq!(families.len(), 2);
        assert_eq!(families[0].metric[0].counter.expect("counter").value(), 5.0);
        let found = families[1].metric[0].histogram.clone().expect("histogram");
        assert_eq!(
            (found.schema(), found.zero_count(), found.bucket.len()),
            (4, 1, 2)
        );
        assert_eq!(found.bucket[1].upper_bound(), f64::INFINITY);
        assert_eq!(families[1].metric[0].label[0].value(), "s");
    }
}
