//! One man page: clap_mangen's sections, and the text after the help as the sections that a manual has for it.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

const MANUAL: &str = "flowvitals";

/// The page of a command.
pub struct Page<'a> {
    command: &'a Command,
    man: Man,
}

impl<'a> Page<'a> {
    /// The page of `command`, which was built (it knows the name under which it is called).
    pub fn of(command: &'a Command) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let man = Man::new(command.clone())
            .manual(MANUAL)
            .source(format!("{MANUAL} {version}"));
        Self { command, man }
    }

    /// `flowvitals-sampler-run.1` and the like.
    pub fn file_name(&self) -> String {
        self.man.get_filename()
    }

    /// Its roff source.
    pub fn render(&self) -> io::Result<Vec<u8>> {
        let (man, mut page) = (&self.man, Vec::new());
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        if self.command.get_arguments().next().is_some() {
            man.render_options_section(&mut page)?;
        }
        if self.command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        let after = self.command.get_after_help().map(ToString::to_string);
        for (title, lines) in sections(&after.unwrap_or_default()) {
            write_section(title, &lines, &mut page)?;
        }
        Ok(page)
    }
}

/// Its lines stay as they are: examples are typed, and tables are aligned.
fn write_section(title: &str, lines: &[&str], page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(*line)]);
    }
    roff.control("fi", []);
    roff.to_writer(page)?;
    page.flush()
}

/// How a section begins in the text after the help, and what a manual calls it.
const TITLED: [(&str, &str); 2] = [("Examples:", "EXAMPLES"), ("Exit codes:", "EXIT STATUS")];
/// What has no title of its own.
const UNTITLED: &str = "NOTES";

/// The text after the help by sections; their headings go, and an empty line ends one.
fn sections(text: &str) -> Vec<(&'static str, Vec<&str>)> {
    let mut sections: Vec<(&'static str, Vec<&str>)> = Vec::new();
    let mut title = UNTITLED;
    for mut line in text.lines() {
        let heading = TITLED
            .iter()
            .find_map(|(heading, title)| Some((*title, line.strip_prefix(heading)?)));
        if let Some((its, rest)) = heading {
            (title, line) = (its, rest.trim_start());
        }
        if line.is_empty() {
            if heading.is_none() {
                title = UNTITLED;
            }
            continue;
        }
        match sections.iter_mut().find(|(known, _)| *known == title) {
            Some((_, lines)) => lines.push(line),
            None => sections.push((title, vec![line])),
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_find_their_sections() {
        let text = "Examples:\n  one --now\n      what it does\n\nSignals: HUP reloads.\nExit codes: 0 done,\n2 usage";
        assert_eq!(
            sections(text),
            [
                ("EXAMPLES", vec!["  one --now", "      what it does"]),
                ("NOTES", vec!["Signals: HUP reloads."]),
                ("EXIT STATUS", vec!["0 done,", "2 usage"]),
            ]
        );
        assert!(sections("").is_empty());
    }

    #[test]
    fn a_page_has_what_the_help_says() {
        let command = Command::new("tool")
            .about("Does it")
            .after_help("Examples:\n  tool --now\n\nExit codes: 0 done");
        let page = String::from_utf8(Page::of(&command).render().unwrap()).unwrap();
        for part in [
            ".TH tool 1",
            ".SH EXAMPLES",
            "tool \\-\\-now",
            ".SH \"EXIT STATUS\"",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
