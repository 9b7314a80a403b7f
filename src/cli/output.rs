//! Data goes to stdout, messages to stderr; a reader who has gone is no error.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde::Serialize;

use super::{error::CliError, exit::Exit};

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For machines: stable snake_case names, spans in seconds, RFC 3339 instants.
    Json,
}

/// Writes data to stdout. Whoever closed the pipe has read enough.
pub fn print(text: &str) -> Result<(), CliError> {
    printed(text).map(drop)
}

/// The same, of what goes on and on: whether anybody still reads it.
pub fn printed(text: &str) -> Result<bool, CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(CliError::new(Exit::Failed, format!("could not write to stdout: {e}"))),
    }
}

/// Writes one JSON value and a line end to stdout.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|e| CliError::new(Exit::Failed, format!("could not write JSON: {e}")))?;
    print(&format!("{json}\n"))
}

/// Writes a message to stderr, which has no one to tell when it is closed.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person looks at messages as they come.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Writes to stderr as it is, without a line end.
pub fn message_part(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes an error to stderr.
pub fn error(error: &CliError) {
    message(&paint(Paint::Red, &format!("reprise: {error}")));
}

/// A colour of a message.
#[derive(Clone, Copy)]
pub enum Paint {
    /// It is over and did not succeed.
    Red,
    /// It goes on, but not as wished.
    Yellow,
    /// It succeeded.
    Green,
    /// Nothing to look at.
    None,
}

/// Colours a message for stderr, when a person with colours looks at it.
pub fn paint(paint: Paint, text: &str) -> String {
    let colour = match paint {
        Paint::Red => 31,
        Paint::Yellow => 33,
        Paint::Green => 32,
        Paint::None => return text.to_owned(),
    };
    match colours_wanted(&io::stderr()) {
        true => format!("\x1b[{colour}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

fn colours_wanted(stream: &impl io::IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused
}

/// A table without lines, as wide as the terminal; as wide as its content when
/// a program reads it.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let fits = if io::stdout().is_terminal() {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    };
    table.set_content_arrangement(fits);
    table.set_header(header.map(header_cell));
    for row in rows {
        table.add_row(row);
    }
    let lines = table.lines().map(|line| line.trim().to_owned() + "\n");
    lines.collect()
}

/// Names and values, a line each.
pub fn fields(fields: Vec<(&'static str, String)>) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): (&str, String)| format!("{name:width$}  {value}\n");
    fields.into_iter().map(line).collect()
}

fn header_cell(title: &str) -> Cell {
    match colours_wanted(&io::stdout()) {
        true => Cell::new(title).add_attribute(Attribute::Bold),
        false => Cell::new(title),
    }
}
