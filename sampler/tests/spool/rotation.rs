//! Certificates and passwords that are replaced while the node runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::kafka::apply::Grants;
use lab::kafka::{Cluster, Options};
use sampler::sink::Drained;

use super::harness::*;

const SAMPLER: &str = "flowvitals-sampler";
/// Of the first certificate: longer than the start takes.
const SHORT: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(3600);

/// The files that an operator replaces.
struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    }

    fn certificate(&self, cluster: &Cluster, life: Duration) {
        let made = cluster.certificate("edge", life).expect("a certificate");
        for (name, from) in ["edge.pem", "edge.key"].into_iter().zip(made) {
            self.write(name, fs::read(from).expect("made"));
        }
    }

    fn authority(&self, cluster: &Cluster) {
        let access = cluster.access("admin");
        self.write(
            "ca.pem",
            fs::read(&access.properties["ssl.ca.location"]).expect("made"),
        );
    }
}

fn plan(cluster: &Cluster, files: &Files) -> Plan {
    let mut plan = Plan::new(cluster.broker_list(), 3);
    plan.properties = cluster.access(SAMPLER).properties;
    plan.properties.remove("sasl.password");
    for (property, file) in [
        ("ssl.ca.location", "ca.pem"),
        ("ssl.certificate.location", "edge.pem"),
        ("ssl.key.location", "edge.key"),
    ] {
        let path = files.path(file).to_string_lossy().into_owned();
        plan.properties.insert(property.to_owned(), path);
    }
    plan.password_file = Some(files.path("password"));
    plan
}

async fn more(node: &mut Node) {
    node.spooled_edges(10, Duration::from_millis(5)).await;
}

/// What is replaced in good time is taken up before anything fails; what is not, as soon as it is there.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_is_taken_up_and_nothing_is_lost() {
    let options = Options {
        users: vec![SAMPLER.to_owned()],
        client_certificates: true,
        ..Options::default()
    };
    let Some(mut cluster) = start_cluster(&options) else {
        return;
    };
    declare(&cluster, Grants::Give).await;
    let (place, folder) = (tempfile::tempdir(), tempfile::tempdir());
    let (place, files) = (
        place.expect("a directory"),
        Files(folder.expect("a directory")),
    );
    files.authority(&cluster);
    files.certificate(&cluster, SHORT);
    files.write(
        "password",
        &cluster.access(SAMPLER).properties["sasl.password"],
    );
    let expires = std::time::Instant::now() + SHORT;
    let mut node = plan(&cluster, &files).start(place.path());
    more(&mut node).await;
    node.all_through().await;

    // The certificate has expired and the password is another one: seen when the connection must be made anew. (The broker calls an
    // expired certificate an unknown one.)
    cluster
        .set_password(SAMPLER, "another")
        .expect("a password");
    let left = expires.saturating_duration_since(std::time::Instant::now());
    tokio::time::sleep(left + Duration::from_secs(1)).await;
    cluster.kill(1);
    cluster.restart(1, None).expect("it is back");
    more(&mut node).await;
    until_said(&node, "alert certificate unknown").await;
    files.certificate(&cluster, LONG);
    until_said(&node, "uthentication failed").await;
    files.write("password", "another\n");
    node.all_through().await;

    // Everything is by another authority.
    cluster.kill(1);
    cluster.renew_authority().expect("certificates");
    cluster.restart(1, None).expect("it is back");
    more(&mut node).await;
    until_said(&node, "certificate verify failed").await;
    files.authority(&cluster);
    files.certificate(&cluster, LONG);
    node.all_through().await;
    until("an empty spool", || node.spool.status().records == 0).await;

    // Replaced before it expires: nothing fails.
    let renewals = node.ledger.totals().renewals;
    files.certificate(&cluster, LONG);
    until("a new producer", || {
        node.ledger.totals().renewals > renewals
    })
    .await;
    more(&mut node).await;
    node.all_through().await;
    assert!(renewals >= 3, "{renewals} producers");
    let (left, ledger) = node.stop().await;
    assert_eq!(left, Drained::default());
    let totals = ledger.totals();
    assert_eq!((totals.dropped, totals.dead_letter), (0, 0));
    let found = once(&arrivals(&cluster, TOPIC, 12));
    println!("{} windows, {} of them twice", found.events, found.doubles);
    assert_eq!(found.events, 4 * 10 * 3);
    assert_secret(place.path());
}

/// No password on the disk but in its file.
fn assert_secret(directory: &Path) {
    for entry in fs::read_dir(directory).expect("the spool") {
        let text = fs::read(entry.expect("an entry").path()).unwrap_or_default();
        assert!(!text.windows(7).any(|seven| seven == b"another"));
    }
}
