//! Builds the kernel side with the stable compiler, and proves where the committed object is from.
//!
//! Every crate is compiled for the host to LLVM IR, the IR is retargeted ([`ir`]), and bpf-linker
//! makes one object of it. It comes out bit-identical in another folder and with another
//! CARGO_HOME because: one codegen unit per crate, inputs in the order of crate names, and every
//! real path remapped to one that exists nowhere (LLVM copies source lines into BTF where it finds
//! the file). Cargo's symbol hashes hold package ids relative to the workspace, no absolute path.

mod ir;
mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{paths, process};

/// The compiler's flags. `--cfg` is what aya-ebpf chooses its bindings by; the linker is none,
/// since nothing is linked for the host.
const FLAGS: [&str; 11] = [
    "--cfg=bpf_target_arch=\"x86_64\"",
    "--emit=llvm-ir",
    "-Cpanic=abort",
    "-Cdebuginfo=2",
    "-Ccodegen-units=1",
    "-Coverflow-checks=off",
    "-Cdebug-assertions=off",
    "-Cforce-unwind-tables=no",
    "-Clinker=true",
    "-Cno-vectorize-slp",
    "-Cno-vectorize-loops",
];
const HOST: &str = "x86_64-unknown-linux-gnu";
/// The crates that become the program.
const CRATES: [&str; 6] = [
    "aya_ebpf",
    "aya_ebpf_bindings",
    "aya_ebpf_cty",
    "ebpf",
    "ebpf_abi",
    "probe",
];

/// Compiles `ebpf/` and writes the object and its sum below `ebpf/prebuilt/`.
pub fn build() -> Result<()> {
    let object = compile(&paths::root(), None, &paths::target().join("ebpf"))?;
    let to = prebuilt();
    fs::create_dir_all(&to)?;
    let bytes = fs::read(&object)?;
    let sum = sha256(&bytes);
    fs::write(to.join("probe.bpf.o"), &bytes)?;
    fs::write(
        to.join("probe.bpf.o.sha256"),
        format!("{sum}  probe.bpf.o\n"),
    )?;
    println!(
        "ebpf/prebuilt/probe.bpf.o: {} bytes, sha256 {sum}",
        bytes.len()
    );
    Ok(())
}

/// Rebuilds from a copy of the source in another folder, with another CARGO_HOME, and compares.
pub fn verify() -> Result<()> {
    let folder = paths::target().join("ebpf-verify");
    let tree = folder.join("a-copy-of-the-tree");
    for stale in [&tree, &folder.join("target")] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    copy_tree(&paths::root(), &tree)?;
    let home = alias_of_cargo_home(&folder)?;
    let object = compile(&tree, Some(&home), &folder.join("target"))?;
    let (ours, built) = (prebuilt().join("probe.bpf.o"), fs::read(&object)?);
    let committed = fs::read(&ours)
        .with_context(|| format!("no {}; make it: cargo xtask ebpf build", ours.display()))?;
    let stated = fs::read_to_string(ours.with_extension("o.sha256"))?;
    let (sum, rebuilt) = (sha256(&committed), sha256(&built));
    ensure!(
        stated.split_whitespace().next() == Some(&sum),
        "probe.bpf.o.sha256 does not belong to probe.bpf.o, which has {sum}"
    );
    ensure!(
        committed == built,
        "the committed object ({} bytes, {sum}) is not what the source gives ({} bytes, {rebuilt}); \
         it is left in {}",
        committed.len(),
        built.len(),
        object.display()
    );
    fs::remove_dir_all(&folder)?;
    println!("ebpf/prebuilt/probe.bpf.o comes from this source, bit for bit: {sum}");
    Ok(())
}

fn prebuilt() -> PathBuf {
    paths::root().join("ebpf/prebuilt")
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The stripped object of the source below `tree`.
fn compile(tree: &Path, cargo_home: Option<&Path>, target: &Path) -> Result<PathBuf> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim());
    let linker = tools::linker(&sysroot)?;
    let cargo = || {
        let mut cargo = process::cargo();
        cargo.current_dir(tree);
        if let Some(home) = cargo_home {
            cargo.env("CARGO_HOME", home);
        }
        cargo
    };
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    flags.extend(remaps(tree, &sysroot, cargo())?);

    let modules = target.join(HOST).join("release/deps");
    if modules.exists() {
        // An old module under another hash would be linked too.
        fs::remove_dir_all(&modules)?;
        fs::remove_dir_all(target.join(HOST).join("release/.fingerprint"))?;
    }
    println!("compiling the kernel side");
    let mut compiler = cargo();
    compiler
        .args([
            "rustc",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "ebpf",
        ])
        // An explicit target keeps the flags away from build scripts and macros.
        .args(["--features", "bpf", "--bin", "probe", "--target", HOST])
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // A caller's own settings must not change the bytes.
        .env_remove("CARGO_BUILD_RUSTFLAGS")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    process::run(&mut compiler)?;
    link(&linker, &sysroot, &modules, target)
}

/// Real paths onto names that exist nowhere on disk.
fn remaps(tree: &Path, sysroot: &Path, mut cargo: Command) -> Result<Vec<String>> {
    let metadata = process::output(cargo.args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        HOST,
    ]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let registries: BTreeSet<&Path> = packages
        .iter()
        .filter(|package| !package["source"].is_null())
        .filter_map(|package| {
            Path::new(package["manifest_path"].as_str()?)
                .ancestors()
                .nth(2)
        })
        .collect();
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .context("rustc tells no commit hash")?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec![
        remap(tree, "/flowvitals-source"),
        // Only where the component rust-src is installed; elsewhere it is this name already.
        remap(
            &sysroot.join("lib/rustlib/src/rust"),
            &format!("/rustc/{commit}"),
        ),
    ];
    flags.extend(
        registries
            .iter()
            .map(|path| remap(path, "/flowvitals-registry")),
    );
    Ok(flags)
}

/// Retargets the modules and links them.
fn link(linker: &Path, sysroot: &Path, modules: &Path, target: &Path) -> Result<PathBuf> {
    let staged = target.join("ir");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    fs::create_dir_all(&staged)?;
    let object = target.join("probe.bpf.o");
    let mut command = tools::with_llvm(linker, sysroot);
    command.args(["--cpu", "v3", "--btf", "-O", "3"]);
    command.arg("--output").arg(&object);
    for name in CRATES {
        let module = fs::read_to_string(module(modules, name)?)?;
        if name == "probe" {
            command.arg("--export").arg(ir::exports(&module).join(","));
        }
        let path = staged.join(format!("{name}.ll"));
        fs::write(&path, ir::retarget(&module))?;
        command.arg(path);
    }
    process::output(&mut command)?;
    tools::strip(&object, sysroot)?;
    Ok(object)
}

/// The one module of this crate: `name-<hash>.ll`.
fn module(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_ir = path.extension().is_some_and(|extension| extension == "ll");
        if is_ir && stem.rsplit_once('-').is_some_and(|(own, _)| own == name) {
            found.push(path);
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!("{} modules of crate {name} instead of one", found.len()),
    }
}

/// Copies the source, without what is made of it.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let (source, copy) = (entry.path(), to.join(&name));
        if name == "target" || name == ".git" || name == "prebuilt" {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &copy)?;
        } else if kind.is_file() {
            fs::copy(&source, &copy)
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// CARGO_HOME under another name: everything in it is there, every path of it is different.
fn alias_of_cargo_home(folder: &Path) -> Result<PathBuf> {
    let real = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("no HOME")?).join(".cargo"),
    };
    let alias = folder.join("another-cargo-home");
    if alias.exists() {
        fs::remove_dir_all(&alias)?;
    }
    fs::create_dir_all(&alias)?;
    for entry in fs::read_dir(&real).with_context(|| format!("cannot read {}", real.display()))? {
        let entry = entry?;
        symlink(entry.path(), alias.join(entry.file_name()))?;
    }
    Ok(alias)
}
