//! One configuration file: its text, and where a byte of it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Place;

/// A file that was read.
#[derive(Debug, Clone)]
pub struct Source {
    name: Arc<Path>,
    text: String,
    /// Byte at which each line begins.
    lines: Vec<usize>,
}

impl Source {
    /// A file of that name with that text.
    pub fn new(name: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0)
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        Self {
            name: Arc::from(name.into()),
            text,
            lines,
        }
    }

    /// Its name, as the operator gave it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte; a byte past the end is the end.
    pub fn place(&self, byte: usize) -> Place {
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let line = self.lines.partition_point(|start| *start <= end);
        let start = self.lines[line - 1];
        Place {
            file: Arc::clone(&self.name),
            line,
            column: self.text[start..end].chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let source = Source::new("a.toml", "é = 1\nb = 2\n");
        let check = |byte, line, column| {
            let place = source.place(byte);
            assert_eq!((place.line, place.column), (line, column), "byte {byte}");
        };
        check(0, 1, 1);
        check(1, 1, 1); // inside the first character
        check(2, 1, 2);
        check(7, 2, 1);
        check(11, 2, 5);
        check(999, 3, 1);
    }
}
