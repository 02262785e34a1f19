//! The words of `cargo xtask`, shared by its two programs.

use clap::{Args, Parser, Subcommand};

/// flowvitals: the project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it at work: an edge with 1,400 players on a lossy network, the sampler, a real Kafka, the aggregator, a pager.
    Demo(Demo),
    /// Check and test everything, with the set-up that it needs.
    Test,
    /// Try the aggregator's HTTP interface with what its OpenAPI document allows and forbids (schemathesis).
    Api,
    /// Measure what the sampler costs on this machine, and print tables.
    Bench(Bench),
    /// Build the packages of sampler and aggregator: .deb and .rpm, with man pages and shell completions.
    Package(Package),
    /// Try the packages in a Debian machine with a real systemd (systemd-nspawn, or QEMU): installation, secrets, reload, watchdog,
    /// kill -9, no memory left, upgrade, stop, purge; and the .rpm of the same.
    SystemdTest(SystemdTest),
    /// Try the sampler on Debian's kernels in guests (QEMU, emulated): exact counts, RTT, stalls, nothing left after a stop, or a
    /// refusal in one sentence.
    VmTest(VmTest),
    /// Install the system packages that building, testing and the demo need.
    Setup,
    /// Build the kernel side, or prove that the committed object comes from its source.
    #[command(subcommand)]
    Ebpf(Ebpf),
    /// A real Kafka cluster on this machine's loopback, for development.
    #[command(subcommand)]
    Kafka(Kafka),
    /// A real Cassandra on this machine's loopback, for development.
    #[command(subcommand)]
    Cassandra(Cassandra),
}

/// Options of the demo.
#[derive(Args, Clone, Copy, Debug)]
pub struct Demo {
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Store in a real Cassandra (0.5 GB of memory), and show the SELECT that reads the last ten seconds.
    #[arg(long)]
    pub cassandra: bool,
}

/// Which packages to build.
#[derive(Args, Clone, Debug, Default)]
pub struct Package {
    /// Of programs as `cargo build` makes them: sooner there, but bigger and slower.
    #[arg(long)]
    pub dev: bool,
    /// Another version than Cargo.toml's, for example to try an upgrade.
    #[arg(long)]
    pub version: Option<String>,
}

/// How packages are tried.
#[derive(Args, Clone, Debug)]
pub struct SystemdTest {
    /// Packages as they are shipped, instead of those of programs as `cargo build` makes them.
    #[arg(long)]
    pub release: bool,
    /// In a guest with a Debian kernel of its own (QEMU, emulated) instead of a container of this machine's: slower, and with a
    /// memory controller of its own.
    #[arg(long)]
    pub qemu: bool,
    /// The guest's kernel: 5.10, 6.1, 6.12, 6.18 or newest.
    #[arg(long, value_name = "SERIES", default_value = "6.1", requires = "qemu")]
    pub kernel: String,
}

/// Which kernels are tried.
#[derive(Args, Clone, Debug)]
pub struct VmTest {
    /// Series, with commas between: 5.10, 6.1, 6.12, 6.18, newest. All if none is given.
    #[arg(long, value_delimiter = ',')]
    pub kernels: Vec<String>,
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// What a node pays: program, live, connections, bulk, walk, daemon, stage, spool, event, churn. What a site gets: merge, onset,
    /// steady, scaling, rebalance. coverage (of intervals), or all (but steady and churn, which take half an hour and an hour).
    #[arg(default_value = "all")]
    pub name: String,
    /// How long steady and churn look, minutes.
    #[arg(long, value_name = "N")]
    pub minutes: Option<String>,
}

/// What to do with the kernel side.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Ebpf {
    /// Compile ebpf/ and write ebpf/prebuilt/probe.bpf.o with its sha256.
    Build,
    /// Rebuild in a copy of the tree and compare with the committed object, bit for bit.
    Verify,
}

/// What to do with Kafka.
#[derive(Clone, Debug, Subcommand)]
pub enum Kafka {
    /// Start brokers on 127.0.0.1:19092, 19102, … and apply the declared topics.
    Up {
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
        brokers: u8,
    },
    /// End them and remove their data.
    Down,
    /// Make a cluster as deploy/kafka/cluster.toml declares it, and say of each thing what was done.
    Apply {
        /// Which cluster.
        #[command(flatten)]
        cluster: KafkaCluster,
        /// Take back what declared principals may do beyond it.
        #[arg(long, conflicts_with = "no_grants")]
        revoke: bool,
    },
    /// Say what differs from deploy/kafka/cluster.toml; exit status 1 if anything does.
    Check {
        /// Which cluster.
        #[command(flatten)]
        cluster: KafkaCluster,
    },
    /// Write server.properties of every node of a production cluster, and say how it is formatted.
    Nodes {
        /// Names or addresses of the nodes: 1, 3 or 5.
        #[arg(long, value_delimiter = ',', required = true)]
        hosts: Vec<String>,
        /// Folder to write kafka-1.properties, … to.
        #[arg(long)]
        into: std::path::PathBuf,
        /// Folder of each node's data.
        #[arg(long, default_value = "/var/lib/kafka/data")]
        data: String,
        /// Folder of each node's node.pem and ca.pem.
        #[arg(long, default_value = "/etc/kafka/secrets")]
        secrets: String,
    },
}

/// How a cluster is reached.
#[derive(Args, Clone, Debug)]
pub struct KafkaCluster {
    /// host:port of brokers, with commas between.
    #[arg(long)]
    pub brokers: String,
    /// File of librdkafka properties (security.protocol, sasl.…, ssl.…), one name=value a line.
    #[arg(long)]
    pub properties: Option<std::path::PathBuf>,
    /// Leave rights alone: a cluster where everybody may do everything.
    #[arg(long)]
    pub no_grants: bool,
}

/// What to do with Cassandra.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Cassandra {
    /// Start one node on 127.0.0.1:9042, or a ring on 127.0.0.1, 127.0.0.2, …
    Up {
        /// How many; one takes 0.5 GB of memory.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
    },
    /// End it and remove its data.
    Down,
}
