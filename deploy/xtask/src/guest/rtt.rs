//! RTT samples are what the link's delay makes them, and say where they come from.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::traffic;
use lab::traffic::plan::Plan;
use lab::traffic::server::Listen;
use sampler_event::{HistogramKind, Histograms, RttSource};

use crate::checks::Bench;
use crate::netem::{self, Path};

/// Name and first port.
pub const STREAM: (&str, u16) = ("rtt", 8200);
const ONE_WAY: Duration = Duration::from_millis(20);
const FLOWS: usize = 6;
/// Both delays.
const DELAY_US: u64 = 40_000;
/// What a packet and its acknowledgement take beside the delays in a guest whose clock counts its instructions.
const WORK_US: u64 = 1_000;
/// Half a bucket at the delay: of RTTs (2^5 an octave) and of handshakes (2^3).
const HALF_US: u64 = 512;
const COARSE_HALF_US: u64 = 2_048;
/// Timestamps are whole milliseconds: one may be lost to rounding.
const ROUNDING_US: u64 = 1_000;

/// Short answers, so that no queue adds to the delay.
pub fn run(bench: &mut Bench, rtt_source: &str) -> Result<String> {
    let Bench {
        network, sampler, ..
    } = bench;
    netem::set(network, Path::delayed(ONE_WAY))?;
    let server = SocketAddr::new(network.server_v4(), STREAM.1);
    let plan =
        Plan::new("steady", FLOWS, vec![server]).asking(40, 10_000, Duration::from_millis(20));
    traffic::run(network, &[Listen::new(server)], &[plan])?;
    sampler.wait_windows(2)?;

    let windows = sampler.windows(STREAM.0);
    let mut histograms = Histograms::default();
    for window in &windows {
        let source = RttSource::try_from(window.rtt_source).unwrap_or_default();
        let source = source
            .as_str_name()
            .trim_start_matches("RTT_SOURCE_")
            .to_lowercase();
        ensure!(
            source == rtt_source,
            "rtt_source is {source}, not {rtt_source}"
        );
        Histograms::check(window).map_err(|(field, error)| anyhow::anyhow!("{field}: {error}"))?;
        histograms.add(window);
    }
    let source = windows.first().context("no windows")?.rtt_source;
    let quantile = |kind, q| histograms.quantile_us(kind, q).context("no samples");
    let samples: u64 = windows.iter().map(|w| w.rtt_count).sum();
    ensure!(
        samples >= FLOWS as u64 * 40,
        "{samples} samples of {FLOWS} flows with 40 answers each"
    );
    let least = windows
        .iter()
        .filter(|w| w.rtt_count > 0)
        .map(|w| w.rtt_min_us)
        .min();
    let least = least.context("no samples")?;
    let median = quantile(HistogramKind::Rtt(source), 0.5)?;
    let handshake = quantile(HistogramKind::Handshake, 0.5)?;
    let high = quantile(HistogramKind::Rtt(source), 0.99)?;
    for (what, us, half) in [
        ("the median", median, HALF_US),
        ("the handshakes' median", handshake, COARSE_HALF_US),
    ] {
        let right = DELAY_US - half..=DELAY_US + WORK_US + half;
        ensure!(right.contains(&us), "{what} is {us} us, not {right:?}");
    }
    ensure!(
        least >= DELAY_US - ROUNDING_US,
        "the least is {least} us at a delay of {DELAY_US}"
    );
    let ms = |us: u64| us as f64 / 1000.0;
    Ok(format!(
        "{rtt_source}: p50 {:.1} ms at 2 x 20 (handshakes {:.1}, least {:.1}, p99 {:.1}), {samples} samples",
        ms(median),
        ms(handshake),
        ms(least),
        ms(high)
    ))
}
