//! nginx as the edge: one server per stream, segments as plain files.

use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::clock;
use lab::network::Network;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::streams::{ALL, SEGMENTS};

/// A running nginx; ends when dropped.
pub struct Edge {
    master: Child,
}

impl Edge {
    /// Writes segments and configuration below `folder` and starts nginx in the edge's namespace.
    pub fn start(network: &Network, folder: &Path) -> Result<Self> {
        let home = folder.join("nginx");
        for stream in &ALL {
            let files = home.join(stream.name);
            fs::create_dir_all(&files)?;
            for number in 0..SEGMENTS {
                let segment = vec![0_u8; stream.segment_bytes];
                fs::write(files.join(format!("segment-{number}.ts")), segment)?;
            }
        }
        let configuration = home.join("nginx.conf");
        fs::write(&configuration, text(network, &home))?;
        let log = fs::File::create(home.join("output.log"))?;
        let master = network
            .server()
            .command("nginx")
            .arg("-p")
            .arg(&home)
            .arg("-c")
            .arg(&configuration)
            .env("PATH", system_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for us; we end it ourselves.
            .process_group(0)
            .spawn()
            .context("cannot start nginx")?;
        let mut edge = Self { master };
        edge.wait_ready(network, &home)?;
        Ok(edge)
    }

    fn wait_ready(&mut self, network: &Network, home: &Path) -> Result<()> {
        let address = SocketAddr::new(network.server_v4(), ALL[0].port);
        let up = network.server().run_in(|| {
            clock::wait_until(Duration::from_secs(10), || {
                TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            })
        })?;
        if !up {
            let log = fs::read_to_string(home.join("output.log")).unwrap_or_default();
            bail!("nginx does not answer on {address}: {}", log.trim());
        }
        Ok(())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.master.id()) {
            // The master ends its workers; SIGKILL would leave them.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ended = clock::wait_until(Duration::from_secs(5), || {
            self.master.try_wait().is_ok_and(|status| status.is_some())
        });
        if !ended {
            // Nothing is left to try after that.
            let _ = self.master.kill();
            let _ = self.master.wait();
        }
    }
}

/// Root's programs lie where a user's PATH may not look.
fn system_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

fn text(network: &Network, home: &Path) -> String {
    let home = home.display();
    let mut text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 16384;\n\
         pid {home}/pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000;\n\
         \x20 default_type video/mp2t;\n"
    );
    for temporary in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {temporary}_temp_path {home}/{temporary};");
    }
    for stream in &ALL {
        let listen = |address| SocketAddr::new(address, stream.port);
        let _ = writeln!(
            text,
            "  server {{ listen {} backlog=4096; listen {} backlog=4096; root {home}/{}; }}",
            listen(network.server_v4()),
            listen(network.server_v6()),
            stream.name
        );
    }
    text.push_str("}\n");
    text
}
