//! Text exposition, version 0.0.4. Pure.
//!
//! Input: families. Output: text. Histograms show their classic buckets.

use std::fmt::Write;

use super::family::{Buckets, Family, Kind, Sample, Value};

/// Content type of [`render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families as text. A family without samples is left out.
pub fn render(families: &[Family]) -> String {
    let mut out = String::with_capacity(64 << 10);
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
            Kind::Histogram => "histogram",
        };
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        line(&mut out, format_args!("# HELP {} {help}", family.name));
        line(&mut out, format_args!("# TYPE {} {kind}", family.name));
        for sample in &family.samples {
            render_sample(&mut out, family.name, sample);
        }
    }
    out
}

fn line(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{arguments}");
}

fn render_sample(out: &mut String, name: &str, sample: &Sample) {
    let labels = |extra: Option<(&str, String)>| labels(&sample.labels, extra);
    match &sample.value {
        Value::Number(value) => line(
            out,
            format_args!("{name}{} {}", labels(None), number(*value)),
        ),
        Value::Summary {
            count,
            sum,
            quantiles,
        } => {
            for (quantile, value) in quantiles {
                let labels = labels(Some(("quantile", number(*quantile))));
                line(out, format_args!("{name}{labels} {}", number(*value)));
            }
            line(
                out,
                format_args!("{name}_sum{} {}", labels(None), number(*sum)),
            );
            line(out, format_args!("{name}_count{} {count}", labels(None)));
        }
        Value::Histogram(buckets) => {
            let Buckets {
                count,
                sum,
                classic,
                ..
            } = &**buckets;
            for (bound, below) in classic {
                line(
                    out,
                    format_args!(
                        "{name}_bucket{} {below}",
                        labels(Some(("le", number(*bound))))
                    ),
                );
            }
            line(
                out,
                format_args!(
                    "{name}_bucket{} {count}",
                    labels(Some(("le", "+Inf".to_owned())))
                ),
            );
            line(
                out,
                format_args!("{name}_sum{} {}", labels(None), number(*sum)),
            );
            line(out, format_args!("{name}_count{} {count}", labels(None)));
        }
    }
}

fn labels(own: &[(&'static str, String)], extra: Option<(&str, String)>) -> String {
    let own = own.iter().map(|(name, value)| (*name, value.clone()));
    let pairs: Vec<String> = own
        .chain(extra)
        .map(|(name, value)| format!("{name}=\"{}\"", escape(&value)))
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", pairs.join(","))
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_every_kind() {
        let mut summary = Family::new(Kind::Summary, "t_seconds", "Times.");
        summary.push(
            &[],
            Value::Summary {
                count: 2,
                sum: 0.3,
                quantiles: vec![(0.5, 0.1)],
            },
        );
        let mut histogram = Family::new(Kind::Histogram, "h_seconds", "Back\\slash\nand line.");
        let buckets = Buckets {
            count: 3,
            sum: 1.5,
            classic: vec![(0.25, 1), (0.5, 2)],
            ..Buckets::default()
        };
        histogram.push(
            &[("stream", "a\"b\\c\nd")],
            Value::Histogram(Box::new(buckets)),
        );
        let families = [
            Family::new(Kind::Counter, "c_total", "Count.")
                .number(&[("x", "1"), ("y", "2")], 9_007_199_254_740_991.0),
            Family::new(Kind::Gauge, "nothing", "Left out."),
            Family::new(Kind::Gauge, "g", "Not a number.").number(&[], f64::NAN),
            summary,
            histogram,
        ];
        let expected = r#"# HELP c_total Count.
# TYPE c_total counter
c_total{x="1",y="2"} 9007199254740991
# HELP g Not a number.
# TYPE g gauge
g NaN
# HELP t_seconds Times.
# TYPE t_seconds summary
t_seconds{quantile="0.5"} 0.1
t_seconds_sum 0.3
t_seconds_count 2
# HELP h_seconds Back\\slash\nand line.
# TYPE h_seconds histogram
h_seconds_bucket{stream="a\"b\\c\nd",le="0.25"} 1
h_seconds_bucket{stream="a\"b\\c\nd",le="0.5"} 2
h_seconds_bucket{stream="a\"b\\c\nd",le="+Inf"} 3
h_seconds_sum{stream="a\"b\\c\nd"} 1.5
h_seconds_count{stream="a\"b\\c\nd"} 3
"#;
        assert_eq!(render(&families), expected);
    }
}
