//! The kernels, kept below `target/vm-test/kernels`: an image and the few modules that guests need.
//!
//! A kernel that lies there is taken for two weeks; then a newer one of its series is looked for, and where none can be had the old
//! one still serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::modules::{self, Purpose};
use super::series::Series;
use crate::{paths, progress};

const FRESH: Duration = Duration::from_secs(14 * 24 * 3600);

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What it is for.
    pub series: Series,
    /// Its release, without the flavour.
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    fn at(series: Series, folder: PathBuf) -> Option<Self> {
        let release = fs::read_to_string(folder.join("release")).ok()?;
        let whole = Purpose::ALL.map(|purpose| folder.join(purpose.name()).is_dir());
        whole.into_iter().all(|is_there| is_there).then_some(())?;
        Some(Self {
            series,
            release: release.trim().to_owned(),
            folder,
        })
    }

    /// The file that is booted.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The modules, in the order in which they are loaded.
    pub fn modules(&self, purpose: Purpose) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.folder.join(purpose.name()))?;
        let mut modules = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        modules.sort();
        Ok(modules)
    }

    fn is_fresh(&self) -> bool {
        let modified = fs::metadata(self.folder.join("release")).and_then(|m| m.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
    }
}

/// A kernel for each series, or why there is none.
pub fn of(wanted: &[Series]) -> Result<Vec<(Series, Result<Kernel>)>> {
    let folder = paths::target().join("vm-test");
    let kept = |series: &Series| Kernel::at(*series, folder.join("kernels").join(series.name));
    let fresh = |series: &Series| kept(series).is_some_and(|kernel| kernel.is_fresh());
    if wanted.iter().all(fresh) {
        let all = wanted
            .iter()
            .filter_map(|series| Some((*series, Ok(kept(series)?))));
        return Ok(all.collect());
    }
    let apt = Apt::new(&folder.join("apt"))?;
    let complaint = progress::during("lists of Debian's packages (40 MB)", || apt.update());
    let releases = apt.kernels()?;
    let fetched = |series: &Series| -> Result<Kernel> {
        let Some(release) = series.pick(&releases) else {
            let why = complaint.as_deref().unwrap_or("no suite has one");
            bail!("a kernel {} is not to be had any more: {why}", series.name);
        };
        match kept(series) {
            Some(kernel) if kernel.release == release => renewed(kernel),
            _ => progress::during(&format!("kernel {release}"), || {
                fetch(&apt, *series, release, &folder)
            }),
        }
    };
    let outcome = |series: &Series| match (fetched(series), kept(series)) {
        (Err(error), Some(kernel)) => {
            println!(
                "  kernel {} is the one that is there: {error:#}",
                kernel.release
            );
            Ok(kernel)
        }
        (outcome, _) => outcome,
    };
    Ok(wanted
        .iter()
        .map(|series| (*series, outcome(series)))
        .collect())
}

/// The same for the next two weeks.
fn renewed(kernel: Kernel) -> Result<Kernel> {
    fs::write(kernel.folder.join("release"), &kernel.release)?;
    Ok(kernel)
}

fn fetch(apt: &Apt, series: Series, release: &str, folder: &Path) -> Result<Kernel> {
    let unpacked = folder.join("unpacked");
    let made = folder.join("kernels").join(series.name);
    for old in [&unpacked, &made] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    apt.unpack_kernel(release, &unpacked)?;
    fs::create_dir_all(&made)?;
    let files = files_below(&unpacked)?;
    let find = |accept: &dyn Fn(&str) -> bool| {
        let name =
            |file: &&PathBuf| accept(&file.file_name().unwrap_or_default().to_string_lossy());
        files.iter().find(name)
    };
    let image = find(&|name| name == "vmlinuz" || name.starts_with("vmlinuz-"));
    let image = image.with_context(|| format!("no image in the packages of {release}"))?;
    fs::rename(image, made.join("vmlinuz"))?;
    for purpose in Purpose::ALL {
        modules::gather(&files, purpose, &made.join(purpose.name()))
            .with_context(|| format!("kernel {release}"))?;
    }
    fs::remove_dir_all(&unpacked)?;
    // Last: without it the folder counts for nothing.
    fs::write(made.join("release"), release)?;
    Kernel::at(series, made).context("the kernel has just been written")
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}
