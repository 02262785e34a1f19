//! Events of real traffic, as a kernel counted it, keep the sizes that the budgets state.
//!
//! `tests/golden/recorded/` holds protobuf bytes of 100 flows over a link of 10 to 40 ms each way that loses 2 %; the
//! sampler's kernel test of sizes writes them.

use std::fs;
use std::path::PathBuf;

use sampler_event::{Layout, Message, StreamPulse, StreamWindow, codec};

fn recorded(kind: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/recorded");
    let entries = fs::read_dir(folder).expect("recorded events");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let wanted = paths.filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(kind))
    });
    wanted.map(|path| fs::read(path).expect("bytes")).collect()
}

#[test]
fn windows_of_real_traffic_fit() {
    let all = recorded("window-");
    assert_eq!(all.len(), 4);
    for bytes in all {
        let window = StreamWindow::decode(bytes.as_slice()).expect("a window");
        assert_eq!(window.encode_to_vec(), bytes);
        assert!((700..=1000).contains(&window.rtt_count) && window.retrans_segs > 0);
        assert!((90..=100).contains(&window.flows_active));
        let rtt = codec::decode(Layout::RTT, &window.rtt_counts).expect("a histogram");
        assert_eq!(rtt.counts().iter().sum::<u64>(), window.rtt_count);
        println!("{} samples: {} bytes", window.rtt_count, bytes.len());
        assert!(bytes.len() <= 640, "{} bytes", bytes.len());
    }
}

#[test]
fn pulses_of_real_traffic_fit() {
    let all = recorded("pulse-");
    assert_eq!(all.len(), 4);
    for bytes in all {
        let pulse = StreamPulse::decode(bytes.as_slice()).expect("a pulse");
        assert_eq!(pulse.encode_to_vec(), bytes);
        assert!(pulse.data_segs_out > 0 && pulse.retrans_segs > 0);
        println!("pulse: {} bytes", bytes.len());
        assert!(bytes.len() <= 128, "{} bytes", bytes.len());
    }
}
