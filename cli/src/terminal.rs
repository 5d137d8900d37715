//! What people see: foreign text made harmless, colour where it is wanted, standard output with its name in errors.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use kfr_analyze::report::text;

use crate::args::{Arguments, Color};

/// How much to say, and how.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    pub quiet: bool,
    pub verbose: bool,
    color: bool,
}

/// A colour that says how bad something is.
#[derive(Debug, Clone, Copy)]
pub enum Paint {
    Red,
    Yellow,
    Plain,
}

impl Terminal {
    pub fn new(arguments: &Arguments) -> Self {
        let color = match arguments.color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: whatever its value, unless empty.
            Color::Auto => {
                std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal()
            }
        };
        Self { quiet: arguments.quiet, verbose: arguments.verbose, color }
    }

    /// For what happens before the options are known.
    pub fn plain() -> Self {
        Self { quiet: false, verbose: false, color: false }
    }

    /// A line on standard error, unless `-q`.
    pub fn say(self, line: impl Display) {
        self.say_painted(Paint::Plain, "", line);
    }

    /// The same, beginning with a word in colour.
    pub fn say_painted(self, paint: Paint, word: &str, line: impl Display) {
        if !self.quiet {
            self.print(paint, word, line);
        }
    }

    /// A line on standard error with `-v`.
    pub fn detail(self, line: impl Display) {
        if self.verbose {
            self.say(line);
        }
    }

    /// An error, whatever the options.
    pub fn error(self, line: impl Display) {
        self.print(Paint::Red, "kfr: ", line);
    }

    fn print(self, paint: Paint, word: &str, line: impl Display) {
        let line = shown(&line.to_string());
        let word = match paint {
            Paint::Red if self.color => format!("\x1b[31m{word}\x1b[0m"),
            Paint::Yellow if self.color => format!("\x1b[33m{word}\x1b[0m"),
            _ => word.to_string(),
        };
        // Where standard error is closed or full there is nobody to tell.
        let _ = writeln!(io::stderr(), "{word}{line}");
    }
}

/// Text from a bundle or a file name as it may be printed: on one line, and nothing in it commands the terminal.
pub fn shown(text: &str) -> String {
    text::clean(text).replace('\n', "\\n")
}

/// Standard output, named in its errors.
pub struct Stdout<W> {
    out: W,
    /// On a terminal: what ended an earlier piece and is no whole character yet.
    rest: Option<Vec<u8>>,
}

/// Standard output for JSON. On a terminal, characters that hide or command are escaped; to a program it is the same
/// JSON, and files and pipes get the bytes as they are.
pub fn json_output() -> Stdout<io::StdoutLock<'static>> {
    let out = io::stdout().lock();
    let rest = out.is_terminal().then(Vec::new);
    Stdout { out, rest }
}

/// Standard output for text, foreign parts of which went through [`shown`].
pub fn text_output() -> Stdout<io::StdoutLock<'static>> {
    Stdout { out: io::stdout().lock(), rest: None }
}

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(rest) = &mut self.rest else { return self.out.write(bytes).map_err(named) };
        rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let later = rest.split_off(whole);
        let text = String::from_utf8_lossy(rest);
        let escaped = escaped_json(&text);
        *rest = later;
        self.out.write_all(escaped.as_bytes()).map_err(named)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(named)
    }
}

/// JSON has these characters in strings only, where an escape stands for them.
fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && text::is_treacherous(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

fn named(error: io::Error) -> io::Error {
    match error.kind() {
        // To be tried again, not told.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("standard output can't be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_foreign_commands_a_terminal() {
        let hostile = "GET /\u{1b}]0;owned\u{7}\u{9b}2J\0 \u{202e}gpj\r\nkfr: all is well";
        let harmless = shown(hostile);
        assert!(!harmless.chars().any(text::is_treacherous), "{harmless}");
        assert!(harmless.contains("owned") && harmless.contains("all is well"), "{harmless}");
    }

    #[test]
    fn json_on_a_terminal_is_the_same_json() {
        let value = serde_json::json!({"a": "\u{1b}[2J \u{9b}\u{202e}\u{e0041} ä", "b": [1, "\n"]});
        for pretty in [format!("{value:#}\n"), format!("{value}\n")] {
            for piece in 1..7 {
                let mut out = Stdout { out: Vec::new(), rest: Some(Vec::new()) };
                pretty.as_bytes().chunks(piece).for_each(|bytes| out.write_all(bytes).unwrap());
                let text = String::from_utf8(out.out).unwrap();
                assert!(!text.chars().any(|c| c != '\n' && text::is_treacherous(c)), "{text}");
                assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
            }
        }
    }
}
