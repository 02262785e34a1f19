//! The broker's jars: resolved once by Maven, remembered below `target/kafka/`.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::KafkaError;
use super::files::{deploy_folder, file_error, work_folder};
use crate::command;

/// One thread of this process at a time; others then find what it has left.
static RESOLVING: Mutex<()> = Mutex::new(());

/// The Java class path of the broker; Maven fetches what is missing (some 45 MB the first time).
pub(super) fn resolve() -> Result<String, KafkaError> {
    let _turn = RESOLVING.lock().unwrap_or_else(PoisonError::into_inner);
    let pom = deploy_folder().join("pom.xml");
    let folder = work_folder();
    fs::create_dir_all(&folder).map_err(file_error(&folder))?;
    let known = folder.join("classpath");
    let modified = |path: &std::path::Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    if modified(&known) > modified(&pom)
        && let Ok(text) = fs::read_to_string(&known)
        && text.split(':').all(|jar| fs::exists(jar).unwrap_or(false))
    {
        return Ok(text);
    }
    // Under a name of our own first: several processes may resolve at the same time.
    let fresh = folder.join(format!("classpath-{}", std::process::id()));
    let maven = |offline: bool| {
        let mut maven = Command::new("mvn");
        if offline {
            maven.arg("--offline");
        }
        maven.args(["--batch-mode", "--quiet", "--file"]).arg(&pom);
        maven.args(["dependency:build-classpath", "-DincludeScope=runtime"]);
        maven.arg(format!("-Dmdep.outputFile={}", fresh.display()));
        command::run(&mut maven)
    };
    if maven(true).is_err() {
        maven(false)?;
    }
    let text = fs::read_to_string(&fresh).map_err(file_error(&fresh))?;
    fs::rename(&fresh, &known).map_err(file_error(&known))?;
    Ok(text)
}
