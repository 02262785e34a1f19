//! Round trips over a link of known delay, held against what the socket itself says.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use lab::{
    network::{Link, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler_event::{Histogram, Layout, StreamWindow, codec};

use crate::harness::{Sampler, network, turn};

const FLOWS: usize = 12;
const PORT: u16 = 8110;
/// The relay holds each packet at least this long, each way.
const ONE_WAY: Duration = Duration::from_millis(20);

/// `label:` of every socket in the output of `ss -ti`, ms; `rtt:smoothed/deviation` without the
/// deviation.
fn socket_ms(text: &str, label: &str) -> Vec<f64> {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(label)?.split('/').next()?.parse().ok())
        .collect()
}

fn merged(
    windows: &[StreamWindow],
    layout: Layout,
    of: impl Fn(&StreamWindow) -> &[i64],
) -> Histogram {
    let mut sum = Histogram::new(layout);
    for window in windows {
        let part = codec::decode(layout, of(window)).expect("a histogram");
        sum.merge(&part).expect("one layout");
    }
    sum
}

fn samples(histogram: &Histogram) -> u64 {
    histogram.counts().iter().sum()
}

fn assert_quantile_ms(name: &str, histogram: &Histogram, q: f64, allowed: RangeInclusive<f64>) {
    let ms = histogram.quantile_us(q).expect("samples") as f64 / 1000.0;
    println!("{name}: quantile {q} is {ms:.2} ms");
    assert!(allowed.contains(&ms), "{name}: {ms} ms, not {allowed:?}");
}

#[test]
fn quantiles_are_those_of_the_link() {
    let Some(_turn) = turn() else { return };
    let network = network(Options {
        link: Link::Delay(ONE_WAY),
        ..Options::default()
    });
    let address = SocketAddr::new(network.server_v4(), PORT);
    let sampler = Sampler::start(
        network.server(),
        &format!("[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = [\"{address}\"]\n"),
    );
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let mut plan =
        Plan::new("steady", FLOWS, vec![address]).asking(60, 20_000, Duration::from_millis(20));
    // One busy moment of this machine is not to be in every handshake.
    plan.start_spread = Duration::from_secs(2);
    let client = Client::start(network.client(), &[plan]).expect("clients");
    let (mut smoothed, mut least) = (Vec::new(), Vec::new());
    while !client.is_finished() {
        let shown = network
            .server()
            .command("ss")
            .args(["-tinH", "state", "established"])
            .output()
            .expect("ss");
        let text = String::from_utf8_lossy(&shown.stdout);
        smoothed.extend(socket_ms(&text, "rtt:"));
        least.extend(socket_ms(&text, "minrtt:"));
        std::thread::sleep(Duration::from_millis(100));
    }
    client.wait().expect("clients");
    drop(server);
    sampler.wait_windows(2);
    let windows = sampler.stop().stream_windows("all");

    smoothed.sort_by(f64::total_cmp);
    assert!(smoothed.len() > FLOWS * 10, "{} by ss", smoothed.len());
    let by_ss = smoothed[smoothed.len() / 2];
    let least_by_ss = least.iter().copied().fold(f64::INFINITY, f64::min);
    println!("ss: median of smoothed {by_ss:.2} ms, least {least_by_ss:.2} ms");

    let rtt = merged(&windows, Layout::RTT, |w| &w.rtt_counts);
    assert!(samples(&rtt) > FLOWS as u64 * 60, "{}", samples(&rtt));
    assert_quantile_ms("rtt", &rtt, 0.5, 34.0..=46.0);
    assert_quantile_ms("rtt against ss", &rtt, 0.5, by_ss * 0.9..=by_ss * 1.1);
    for window in &windows {
        let part = codec::decode(Layout::RTT, &window.rtt_counts).expect("a histogram");
        assert_eq!(samples(&part), window.rtt_count);
        if window.rtt_count == 0 {
            continue;
        }
        // A flow's timestamps are whole milliseconds: one may be lost to rounding.
        assert!(window.rtt_min_us >= 39_000, "{} µs", window.rtt_min_us);
        assert!(window.rtt_min_us <= window.rtt_max_us);
        let mean_us = window.rtt_sum_us / window.rtt_count;
        assert!((window.rtt_min_us..=window.rtt_max_us).contains(&mean_us));
    }

    let handshakes = merged(&windows, Layout::COARSE, |w| &w.rtt_handshake_counts);
    assert_eq!(samples(&handshakes), FLOWS as u64, "one for each flow");
    assert_quantile_ms("handshake", &handshakes, 0.5, 34.0..=46.0);

    let minima = merged(&windows, Layout::COARSE, |w| &w.rtt_min_counts);
    // The last acknowledgement of a flow may come in the window after its last segment; then or in the next the flow is closed.
    let most = windows.iter().map(|w| w.flows_active).sum::<u64>() + FLOWS as u64;
    let found = samples(&minima);
    assert!(
        (FLOWS as u64..=most).contains(&found),
        "{found} minima, at most {most}"
    );
    for (n, window) in windows.iter().enumerate() {
        let part = codec::decode(Layout::COARSE, &window.rtt_min_counts).expect("a histogram");
        let ending: u64 = windows[n..].iter().take(2).map(|w| w.flows_closed).sum();
        let most = window.flows_active + ending;
        assert!(samples(&part) <= most, "{n}: {window:?}");
    }
    // Buckets of 2^3 an octave: 6.25 % to either side.
    assert_quantile_ms(
        "least rtt",
        &minima,
        0.5,
        least_by_ss * 0.93..=least_by_ss * 1.15,
    );
}
