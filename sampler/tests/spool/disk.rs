//! The disk is full, read-only, slow, or does not answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sampler::sink::Drained;
use sampler::spool::Faults;

use super::harness::*;

/// A file system of our own, gone when dropped.
struct Disk {
    folder: tempfile::TempDir,
    mount: PathBuf,
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

impl Disk {
    fn made(make: impl Fn(&Path, &Path) -> Result<(), String>) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a directory");
        let mount = folder.path().join("disk");
        fs::create_dir(&mount).expect("made");
        match make(folder.path(), &mount) {
            Ok(()) => Some(Self { folder, mount }),
            Err(error) if !required() => {
                println!("skipped: no disk of our own: {error}");
                None
            }
            Err(error) => panic!("no disk of our own: {error}"),
        }
    }

    fn tmpfs(size: &str) -> Option<Self> {
        Self::made(|_, mount| {
            let size = format!("size={size}");
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(mount))
        })
    }

    /// ext4 on a file, which becomes read-only at its first error, as a disk that goes bad does.
    fn ext4() -> Option<Self> {
        Self::made(|folder, mount| {
            let image = folder.join("image");
            let file = fs::File::create(&image).map_err(|error| error.to_string())?;
            file.set_len(32 << 20).map_err(|error| error.to_string())?;
            run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
            run(Command::new("mount")
                .args(["-o", "loop,errors=remount-ro"])
                .arg(&image)
                .arg(mount))
        })
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        run(Command::new("mount")
            .args(["-o", &options])
            .arg(&self.mount))
        .expect("resized");
    }

    /// Has the file system find an error.
    fn go_bad(&self) -> Result<(), String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|e| e.to_string())?;
        let ours = self.mount.to_string_lossy().into_owned();
        let device = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let device = fields.next()?;
            (fields.next()? == ours).then_some(device)
        });
        let device = device.and_then(|device| device.rsplit('/').next());
        let switch = format!(
            "/sys/fs/ext4/{}/trigger_fs_error",
            device.ok_or("not mounted")?
        );
        fs::write(&switch, "a test").map_err(|error| format!("{switch}: {error}"))
    }

    fn heal(&self) {
        run(Command::new("umount").arg("-l").arg(&self.mount)).expect("unmounted");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
        let _ = self.folder.path();
    }
}

async fn trouble(node: &Node, word: &str) {
    until(word, || {
        let trouble = node.spool.status().trouble();
        trouble.is_some_and(|trouble| trouble.contains(word))
    })
    .await;
    println!(
        "said: {}",
        node.spool.status().trouble().unwrap_or_default()
    );
}

/// Ends a life of which every window must have arrived.
async fn all_arrived(node: Node, cluster: &lab::kafka::Cluster, streams: u64) {
    node.all_through().await;
    let (produced, slowest) = (node.next * streams, node.slowest_push);
    let (left, ledger) = node.stop().await;
    assert_eq!(left, Drained::default());
    let found = once(&arrivals(cluster, TOPIC, 12));
    println!(
        "of {produced} windows {} arrived, {} twice, {} without having been on disk; the window stage waited {slowest:?} at most",
        found.events,
        found.doubles,
        ledger.totals().unspooled
    );
    assert_eq!(found.events, produced);
    assert_eq!(ledger.totals().dropped, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_nothing_up_and_is_left_behind() {
    let Some(disk) = Disk::tmpfs("300k") else {
        return;
    };
    let Some(mut cluster) = cluster(1).await else {
        return;
    };
    let streams = 50;
    let mut node = Plan::new(cluster.broker_list(), streams).start(&disk.mount.join("spool"));
    node.edges(3, Duration::from_millis(20)).await;
    node.all_through().await;
    cluster.kill(1);
    node.edges(60, Duration::from_millis(20)).await;
    trouble(&node, "No space left").await;
    assert!(node.ledger.totals().unspooled > 0);
    disk.resize("64m");
    // Once a second it is tried again.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    node.edges(3, Duration::from_millis(20)).await;
    until("the end of the trouble", || {
        node.spool.status().trouble().is_none()
    })
    .await;
    cluster.restart(1, None).expect("back");
    all_arrived(node, &cluster, streams as u64).await;
}

/// Nothing takes events, neither disk nor broker: the memory is bounded, and what it cannot hold is counted.
#[tokio::test(flavor = "multi_thread")]
async fn without_disk_and_broker_the_oldest_are_lost_and_counted() {
    let Some(disk) = Disk::tmpfs("100k") else {
        return;
    };
    let streams = 200;
    let mut node =
        Plan::new(vec!["127.0.0.1:1".to_owned()], streams).start(&disk.mount.join("spool"));
    node.edges(60, Duration::from_millis(5)).await;
    until("drops", || node.ledger.totals().dropped_by.queue > 0).await;
    node.check_laws();
    let totals = node.ledger.totals();
    println!("{totals:?}");
    // What may be in memory: the queue and the table of events in flight.
    assert!(totals.waiting <= 2_060 + 5_000 + 5_000);
    let by_stream: u64 = (0..streams)
        .map(|n| node.ledger.loss(&format!("stream-{n}")).dropped)
        .sum();
    assert!(by_stream > 0 && by_stream <= node.ledger.totals().dropped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_becomes_read_only_is_said_and_nothing_is_lost() {
    let Some(disk) = Disk::ext4() else { return };
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let mut node = Plan::new(cluster.broker_list(), 20).start(&disk.mount.join("spool"));
    node.edges(20, Duration::from_millis(10)).await;
    if let Err(error) = disk.go_bad() {
        assert!(!required(), "{error}");
        println!("skipped: {error}");
        return;
    }
    node.edges(40, Duration::from_millis(10)).await;
    trouble(&node, "ead-only").await;
    assert!(node.ledger.totals().unspooled > 0);
    all_arrived(node, &cluster, 20).await;
    disk.heal();
}

/// A disk that takes its time. There is no real one: the time is spent where the system call would spend it.
#[derive(Debug, Default)]
struct Slow {
    write_ms: AtomicU64,
    sync_ms: AtomicU64,
}

impl Slow {
    fn wait(ms: &AtomicU64) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(ms.load(Ordering::Relaxed)));
        Ok(())
    }
}

impl Faults for Slow {
    fn before_write(&self) -> io::Result<()> {
        Self::wait(&self.write_ms)
    }
    fn before_sync(&self) -> io::Result<()> {
        Self::wait(&self.sync_ms)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sync_holds_nothing_up() {
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let place = tempfile::tempdir().expect("a directory");
    let slow = Arc::new(Slow::default());
    slow.sync_ms.store(500, Ordering::Relaxed);
    let mut plan = Plan::new(cluster.broker_list(), 20);
    plan.faults = Some(slow.clone());
    let mut node = plan.start(place.path());
    node.spooled_edges(150, Duration::from_millis(10)).await;
    trouble(&node, "fsync took 5").await;
    assert_eq!(node.ledger.totals().unspooled, 0, "writes go on");
    slow.sync_ms.store(0, Ordering::Relaxed);
    node.edges(100, Duration::from_millis(10)).await;
    until("the end of the trouble", || {
        node.spool.status().trouble().is_none()
    })
    .await;
    all_arrived(node, &cluster, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_passed_by() {
    let Some(cluster) = cluster(1).await else {
        return;
    };
    let place = tempfile::tempdir().expect("a directory");
    let slow = Arc::new(Slow::default());
    let mut plan = Plan::new(cluster.broker_list(), 20);
    plan.faults = Some(slow.clone());
    let mut node = plan.start(place.path());
    node.edges(10, Duration::from_millis(10)).await;
    slow.write_ms.store(2000, Ordering::Relaxed);
    node.edges(30, Duration::from_millis(50)).await;
    assert!(node.spool.status().stuck, "it is said");
    until("delivery from memory", || {
        node.ledger.totals().unspooled > 0 && node.ledger.totals().waiting < 21
    })
    .await;
    slow.write_ms.store(0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    node.edges(10, Duration::from_millis(10)).await;
    until("the end of the trouble", || {
        node.spool.status().trouble().is_none()
    })
    .await;
    until("an empty spool", || node.spool.status().records == 0).await;
    all_arrived(node, &cluster, 20).await;
}
