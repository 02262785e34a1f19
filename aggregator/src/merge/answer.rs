//! What a question about a stream is answered with; the names are those of the HTTP interface.

use sampler_event::{Estimate, Insufficient, Metric};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::Presence;

/// A quantity that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Segments retransmitted.
    RetransSegs,
    /// Segments with payload sent.
    DataSegsOut,
    /// Segments retransmitted by segments sent.
    RetransRatio,
    /// Stalled time by busy time.
    StallRatio,
    /// Round-trip samples above the stream's limit by all.
    RttSlowRatio,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::RetransSegs,
        Self::DataSegsOut,
        Self::RetransRatio,
        Self::StallRatio,
        Self::RttSlowRatio,
    ];
    /// Their names.
    pub const NAMES: [&'static str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].name();
            at += 1;
        }
        names
    };

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetransSegs => "retrans_segs",
            Self::DataSegsOut => "data_segs_out",
            Self::RetransRatio => "retrans_ratio",
            Self::StallRatio => "stall_ratio",
            Self::RttSlowRatio => "rtt_slow_ratio",
        }
    }

    /// The quantity of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|quantity| quantity.name() == name)
    }

    /// As the estimators know it; round trips are of one source.
    pub const fn metric(self, rtt_source: i32) -> Metric {
        match self {
            Self::RetransSegs => Metric::RetransSegs,
            Self::DataSegsOut => Metric::DataSegsOut,
            Self::RetransRatio => Metric::RetransRatio,
            Self::StallRatio => Metric::StallRatio,
            Self::RttSlowRatio => Metric::RttSlowRatio(rtt_source),
        }
    }
}

/// An estimate over all flows of a stream, with all that its reader needs to judge it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Answer {
    /// The estimate; none: see `reason`.
    pub value: Option<f64>,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// Probability with which the interval should hold the truth.
    pub confidence: f64,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Begin of the span, Unix ms.
    pub from_ms: u64,
    /// End of the span, Unix ms.
    pub to_ms: u64,
    /// Distinct sampled flows behind the estimate, at least.
    pub flows_sampled: u64,
    /// Handshakes completed in the span. Exact.
    pub flows_seen: u64,
    /// Nodes that should be in it.
    pub nodes_expected: u64,
    /// Nodes that are, up to its end.
    pub nodes_reported: u64,
    /// More may come: the end of the span is newer than the watermark, or a node has not reported.
    pub provisional: bool,
    /// Flows were refused at a limit: the estimate may lean to one side.
    pub biased: bool,
}

/// What an answer says beside its estimate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    /// Nodes at the end of the span.
    pub(crate) presence: Presence,
    /// Handshakes completed. Exact.
    pub(crate) flows_seen: u64,
    /// Flows were refused at a limit.
    pub(crate) biased: bool,
    /// More may come from the nodes that have reported.
    pub(crate) provisional: bool,
}

impl Answer {
    /// From an estimate, or why there is none.
    pub(crate) fn new(
        estimate: Result<Estimate, Insufficient>,
        (from_ms, to_ms): (u64, u64),
        evidence: Evidence,
    ) -> Self {
        let Presence { expected, reported } = evidence.presence;
        let mut answer = Self {
            value: None,
            low: None,
            high: None,
            confidence: 0.95,
            reason: None,
            from_ms,
            to_ms,
            flows_sampled: 0,
            flows_seen: evidence.flows_seen,
            nodes_expected: expected,
            nodes_reported: reported,
            provisional: evidence.provisional || reported < expected,
            biased: evidence.biased,
        };
        match estimate {
            Ok(estimate) => {
                answer.value = Some(estimate.value);
                answer.low = Some(estimate.low);
                answer.high = Some(estimate.high);
                answer.confidence = estimate.confidence;
                answer.flows_sampled = estimate.flows_sampled;
            }
            Err(Insufficient::Flows { flows, .. }) => {
                answer.reason = Some("insufficient");
                answer.flows_sampled = flows;
            }
            Err(Insufficient::Denominator) => answer.reason = Some("insufficient"),
        }
        answer
    }
}

/// One step of a series: sums over it, scaled by nothing, and what they say about all flows.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Point {
    /// Begin of the step, Unix ms.
    pub from_ms: u64,
    /// End of the step, Unix ms.
    pub to_ms: u64,
    /// Sums of the counters of sampled flows; `flows_seen` is exact.
    #[schema(schema_with = counters_schema)]
    pub counters: sampler_event::Counters,
    /// Ratio of retransmitted segments over all flows.
    pub retrans_ratio: Answer,
    /// Round-trip quantiles over all flows, µs; none without samples.
    pub rtt_p50_us: Option<u64>,
    /// 90 %.
    pub rtt_p90_us: Option<u64>,
    /// 99 %.
    pub rtt_p99_us: Option<u64>,
    /// Sampled flows open at the end of the step.
    pub flows_open: u64,
    /// Stalls of sampled flows open at the end of the step.
    pub stalls_open: u64,
}

/// The counters by name, as they are written.
fn counters_schema() -> Object {
    let zero = serde_json::to_value(sampler_event::Counters::default()).unwrap_or_default();
    let names = zero.as_object().into_iter().flat_map(|all| all.keys());
    let counter = || {
        let counter = ObjectBuilder::new().schema_type(Type::Integer);
        counter.minimum(Some(utoipa::Number::UInt(0)))
    };
    names
        .fold(ObjectBuilder::new(), |object, name| {
            object.property(name, counter()).required(name)
        })
        .build()
}
