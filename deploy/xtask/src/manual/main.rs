//! Man pages and shell completions, made of the command lines that the programs themselves parse.
//!
//! In: a folder. Out: `man/PROGRAM[-SUBCOMMAND].1` and `completions/` for bash, zsh and fish below it.
//! Started by `cargo xtask package`: the command lines are in crates that need Kafka's client to build.

mod page;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};

fn main() -> Result<()> {
    let folder: OsString = std::env::args_os().nth(1).context("into which folder?")?;
    let (pages, completions) = (
        Path::new(&folder).join("man"),
        Path::new(&folder).join("completions"),
    );
    for made in [&pages, &completions] {
        if made.exists() {
            // A page of a subcommand that is gone would be packed too.
            fs::remove_dir_all(made)?;
        }
        fs::create_dir_all(made)?;
    }
    for program in [
        sampler::cli::Cli::command(),
        aggregator::cli::Cli::command(),
    ] {
        write_pages(&program, &pages)?;
        write_completions(program, &completions)?;
    }
    Ok(())
}

/// A page for the program and for each of its subcommands.
fn write_pages(program: &Command, folder: &Path) -> Result<()> {
    let mut program = program.clone().disable_help_subcommand(true);
    // Gives the subcommands the names under which they are called.
    program.build();
    write_page(&program, folder)
}

fn write_page(command: &Command, folder: &Path) -> Result<()> {
    let page = page::Page::of(command);
    fs::write(folder.join(page.file_name()), page.render()?)?;
    for subcommand in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        write_page(subcommand, folder)?;
    }
    Ok(())
}

fn write_completions(mut program: Command, folder: &Path) -> Result<()> {
    let name = program.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut program, &name, folder)?;
    }
    Ok(())
}
