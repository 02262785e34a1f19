//! At the end: what was true, beside what the windows say.

use lab::counters::TcpCounters;
use lab::traffic::client::ClientFlow;
use sampler_event::{Metric, Options, Sample, total};

use super::streams::ALL;
use super::table::Table;

/// Prints the kernel's own counters of the edge's namespace, the players' accounts, and ours.
pub fn print(table: &Table, seen: &TcpCounters, flows: &[ClientFlow]) {
    let options = Options::default();
    println!("\n== what was true, and what the windows say");
    println!(
        "{:<10} {:>16} {:>12} {:>16}   {:<16} stalls of sampled flows (longest)",
        "stream", "players began", "flows_seen", "retrans_segs", "95 % interval"
    );
    let mut samples: Vec<Sample> = Vec::new();
    for sum in table.sums() {
        let of_stream = Metric::RetransSegs.samples(sum);
        let estimate = total(&of_stream, &options);
        let (value, interval) = match estimate {
            Ok(estimate) if estimate.exact => {
                (format!("{:.0}", estimate.value), "exact".to_owned())
            }
            Ok(estimate) => (
                format!("{:.0}", estimate.value),
                format!("[{:.0}, {:.0}]", estimate.low, estimate.high),
            ),
            Err(reason) => ("-".to_owned(), reason.to_string()),
        };
        let began = ALL
            .iter()
            .position(|stream| stream.name == sum.stream())
            .map_or(0, |plan| {
                flows.iter().filter(|flow| flow.plan == plan).count()
            });
        println!(
            "{:<10} {began:>16} {:>12} {value:>16}   {interval:<16} {} ({:.1} s)",
            sum.stream(),
            sum.counters().flows_seen,
            sum.counters().stalls,
            table.longest_stall_us(sum.stream()) as f64 / 1e6,
        );
        samples.extend(of_stream);
    }
    let truth = print_kernel(seen);
    match total(&samples, &options) {
        Ok(all) => println!(
            "the windows of all streams say {:.0}, 95 % interval [{:.0}, {:.0}]: the truth lies {} it",
            all.value,
            all.low,
            all.high,
            if (all.low..=all.high).contains(&(truth as f64)) {
                "inside"
            } else {
                "outside"
            }
        ),
        Err(reason) => println!("the windows of all streams: {reason}"),
    }
    node(table);
}

/// Prints what the kernel of the edge counted; its data retransmissions.
pub fn print_kernel(seen: &TcpCounters) -> u64 {
    let truth = seen.data_retrans_segs();
    println!(
        "\nthe kernel of the edge counted {truth} retransmitted segments (TcpRetransSegs {} less TCPSynRetrans {})",
        seen.retrans_segs, seen.syn_retrans
    );
    truth
}

fn node(table: &Table) {
    let (windows, bytes, refused) = table.counts();
    let size = bytes.checked_div(windows).unwrap_or(0);
    println!(
        "{windows} windows came out of Kafka, {size} bytes each on average; {refused} events could not be read"
    );
    if let Some(node) = table.last_node() {
        println!(
            "the sampler used {:.2} s of CPU in all and {:.1} MB of memory; of {} sampled flows it refused {}; \
             {} events produced, {} dropped",
            node.cpu_us_total as f64 / 1e6,
            node.rss_bytes as f64 / 1e6,
            node.flows_selected,
            node.flows_refused,
            node.events_produced,
            node.events_dropped,
        );
    }
}
