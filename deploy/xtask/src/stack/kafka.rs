//! `kafka up` and `down`: a cluster below target/kafka/dev that outlives the command. `apply` and `check`: any cluster, held to
//! the declaration. `nodes`: the properties of a production cluster.

use std::fs;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lab::kafka::apply::{self, Grants, Line};
use lab::kafka::declaration::{Copies, Declaration};
use lab::kafka::{self, Access, Cluster, NodePorts, Options, Place, Properties, topics};

use crate::cli::{Kafka, KafkaCluster};

/// The first broker's port; the example configurations use it.
const FIRST_PORT: u16 = 19_092;

/// Starts the cluster and applies the declared topics, or ends it.
pub fn run(command: Kafka) -> Result<()> {
    match command {
        Kafka::Up { brokers } => up(brokers.into()),
        Kafka::Down => down(),
        Kafka::Apply { cluster, revoke } => {
            let access = access(&cluster)?;
            println!("{}", apply::size_in_words(&access)?);
            let grants = match revoke {
                true => Grants::GiveAndTake,
                false => grants(&cluster),
            };
            let lines = apply::apply(&access, &declaration()?, grants)?;
            report(&lines, "not as declared")
        }
        Kafka::Check { cluster } => {
            let access = access(&cluster)?;
            println!("{}", apply::size_in_words(&access)?);
            let lines = apply::check(&access, &declaration()?, grants(&cluster))?;
            report(&lines, "different from what is declared")
        }
        Kafka::Nodes {
            hosts,
            into,
            data,
            secrets,
        } => nodes(&hosts, &into, &data, &secrets),
    }
}

fn declaration() -> Result<Declaration> {
    Ok(Declaration::read(&kafka::declared_topics())?)
}

fn access(cluster: &KafkaCluster) -> Result<Access> {
    Ok(match &cluster.properties {
        Some(file) => Access::with_file(&cluster.brokers, file)?,
        None => Access::plain(&cluster.brokers),
    })
}

fn grants(cluster: &KafkaCluster) -> Grants {
    match cluster.no_grants {
        true => Grants::Leave,
        false => Grants::Give,
    }
}

/// Prints the lines; an error if one of them is not good.
fn report(lines: &[Line], word: &str) -> Result<()> {
    for line in lines {
        println!("  {} {line}", if line.good { ' ' } else { '!' });
    }
    match lines.iter().filter(|line| !line.good).count() {
        0 => {
            println!("all is as declared");
            Ok(())
        }
        count => bail!("{count} thing(s) {word}"),
    }
}

/// Ports of a production node; nothing else listens on a broker's machine.
const PORTS: NodePorts = NodePorts {
    client: 9092,
    broker: 9093,
    controller: 9094,
};

fn nodes(hosts: &[String], into: &Path, data: &str, secrets: &str) -> Result<()> {
    ensure!(
        matches!(hosts.len(), 1 | 3 | 5),
        "a cluster has 1, 3 or 5 nodes: an even one stands no more failures than the odd one below it"
    );
    fs::create_dir_all(into).with_context(|| into.display().to_string())?;
    let place = |host: &String| Place {
        host: host.clone(),
        ports: PORTS,
        data: data.to_owned(),
        secrets: secrets.to_owned(),
    };
    let places: Vec<_> = hosts.iter().map(place).collect();
    let properties = Properties {
        secure: true,
        small: false,
        more: Vec::new(),
    };
    for id in 1..=places.len() {
        let path = into.join(format!("{}.properties", kafka::node_name(id)));
        let text = properties.of_node(id, &places)?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    let Copies { all, in_sync } = Copies::for_brokers(hosts.len());
    println!(
        "{all} copies, {in_sync} of which must have a write; deploy/kafka/README.md says how the nodes are formatted"
    );
    Ok(())
}

fn up(nodes: usize) -> Result<()> {
    println!("starting {nodes} broker(s) (the first time their jars are fetched, 45 MB)");
    let options = Options {
        nodes,
        first_port: Some(FIRST_PORT),
        folder: Some(kafka::work_folder().join("dev")),
        ..Options::default()
    };
    let cluster = Cluster::start(&options, None)?;
    let brokers = cluster.brokers();
    for (name, outcome) in topics::apply(&brokers, &topics::read(&kafka::declared_topics())?)? {
        println!("  {name}: {outcome}");
    }
    cluster.leave_running();
    println!("bootstrap.servers={brokers}");
    Ok(())
}

fn down() -> Result<()> {
    let folder = kafka::work_folder().join("dev");
    let ended = kafka::stop_in(&folder);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    println!("{ended} broker(s) ended");
    Ok(())
}
