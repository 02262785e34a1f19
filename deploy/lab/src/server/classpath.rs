//! A server's jars: resolved once by Maven, remembered below `target/<kind>/`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::{Kind, ServerError, file_error};
use crate::command;

/// One thread of this process at a time; others then find what it has left.
static RESOLVING: Mutex<()> = Mutex::new(());

/// The Java class path; Maven fetches what is missing (some 45 to 67 MB the first time).
pub(super) fn resolve(kind: Kind) -> Result<String, ServerError> {
    let _turn = RESOLVING.lock().unwrap_or_else(PoisonError::into_inner);
    let pom = kind.deploy_folder().join("pom.xml");
    let folder = kind.work_folder();
    fs::create_dir_all(&folder).map_err(file_error(&folder))?;
    let known = folder.join("classpath");
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    if modified(&known) > modified(&pom)
        && let Ok(text) = fs::read_to_string(&known)
        && text.split(':').all(|jar| fs::exists(jar).unwrap_or(false))
    {
        return Ok(text);
    }
    // Under a name of our own first: several processes may resolve at the same time.
    let fresh = folder.join(format!("classpath-{}", std::process::id()));
    if maven(&pom, &fresh, true).is_err() {
        maven(&pom, &fresh, false)?;
    }
    let text = fs::read_to_string(&fresh).map_err(file_error(&fresh))?;
    fs::rename(&fresh, &known).map_err(file_error(&known))?;
    Ok(text)
}

fn maven(pom: &Path, to: &Path, offline: bool) -> Result<String, command::CommandError> {
    let mut maven = Command::new("mvn");
    if offline {
        maven.arg("--offline");
    }
    maven.args(["--batch-mode", "--quiet", "--file"]).arg(pom);
    maven.args(["dependency:build-classpath", "-DincludeScope=runtime"]);
    maven.arg(format!("-Dmdep.outputFile={}", to.display()));
    command::run(&mut maven)
}
