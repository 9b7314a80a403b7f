//! A transcript, read: what is done, when, and what is to be answered.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    time::Duration,
};

use super::{span, told::Told};

/// Words that name the word after them, as `until` in `until 30s`.
const NAMING: [&str; 5] = ["as", "in", "at", "until", "named"];

/// A story with its answers.
pub struct Transcript {
    pub lines: Vec<Line>,
    source: Vec<String>,
}

/// One thing that is done, and its answer.
pub struct Line {
    /// From 1, as editors count.
    pub number: usize,
    /// Time since the start; None stays where the line before was.
    pub at: Option<Duration>,
    /// What is done.
    pub deed: Words,
    /// The indented lines below: a policy in YAML. Empty when there are none.
    pub block: String,
    /// What is to be answered.
    pub expected: Option<Words>,
}

/// Words in any order, but for plain ones among themselves. Each is taken once;
/// a word that nobody takes is not understood.
#[derive(Clone, Default)]
pub struct Words {
    pub plain: VecDeque<String>,
    pub named: BTreeMap<String, String>,
}

impl Transcript {
    /// Reads a transcript, or says which line cannot be understood, and why.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let source: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut lines: Vec<Line> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with(' ') {
                let Some(above) = lines.last_mut() else {
                    return Err((number, "an indented line belongs to one above it".to_owned()));
                };
                above.block += line;
                above.block.push('\n');
            } else if !line.is_empty() && !line.starts_with('#') {
                lines.push(Line::parse(number, line).map_err(|problem| (number, problem))?);
            }
        }
        if !source.first().is_some_and(|line| line.starts_with("# ")) {
            return Err((1, "a transcript begins with what it tells: # One sentence.".to_owned()));
        }
        if !lines.iter().any(|line| line.expected.is_some()) {
            return Err((source.len(), "nothing is expected: no line has an answer".to_owned()));
        }
        Ok(Self { lines, source })
    }

    /// Whether it needs a store that outlives the process.
    pub fn restarts(&self) -> bool {
        self.lines.iter().any(|line| line.deed.plain.front().is_some_and(|verb| verb == "restart"))
    }

    /// The end of the transcript up to a line that went wrong, as in a diff.
    pub fn diff(&self, line: &Line, actual: &str) -> String {
        let mut text = String::new();
        for number in line.number.saturating_sub(6).max(1)..line.number {
            let _ = writeln!(text, "    {number:>3}  {}", self.source[number - 1]);
        }
        let written = &self.source[line.number - 1];
        let arrow = written.find("->").unwrap_or(written.len() + 1);
        let _ = writeln!(text, "  - {:>3}  {written}", line.number);
        let _ = write!(text, "  + {:>3}  {:arrow$}-> {actual}", line.number, "");
        text
    }
}

impl Line {
    fn parse(number: usize, line: &str) -> Result<Self, String> {
        let (deed, expected) = match line.split_once("->") {
            Some((deed, expected)) => (deed, Some(Words::parse(expected)?)),
            None => (line, None),
        };
        let deed = deed.trim_start();
        let (first, rest) = deed.split_once(' ').unwrap_or((deed, ""));
        let at = span::parse(first);
        let deed = Words::parse(if at.is_some() { rest } else { deed })?;
        Ok(Self { number, at, deed, block: String::new(), expected })
    }
}

impl Words {
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = Self::default();
        let mut tokens = tokens(text)?.into_iter();
        while let Some(token) = tokens.next() {
            let (name, value) = match token.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None if NAMING.contains(&token.as_str()) => {
                    let value = tokens.next().ok_or_else(|| format!("{token} what?"))?;
                    (token, value)
                }
                None => {
                    words.plain.push_back(token);
                    continue;
                }
            };
            if words.named.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is said twice"));
            }
        }
        Ok(words)
    }

    /// Takes the next plain word.
    pub fn word(&mut self, meaning: &str) -> Result<String, String> {
        self.plain.pop_front().ok_or_else(|| format!("{meaning} is missing"))
    }

    /// Takes a plain word if it was said.
    pub fn flag(&mut self, word: &str) -> bool {
        let said = self.plain.iter().position(|said| said == word);
        said.and_then(|at| self.plain.remove(at)).is_some()
    }

    /// Takes a named word; empty when it was not said.
    pub fn text(&mut self, name: &str) -> String {
        self.named.remove(name).unwrap_or_default()
    }

    /// Takes a named number.
    pub fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let number =
            |text: String| text.parse().map_err(|_| format!("{name}={text} is not such a number"));
        self.named.remove(name).map(number).transpose()
    }

    /// Takes a named length of time.
    pub fn span(&mut self, name: &str) -> Result<Option<Duration>, String> {
        let read =
            |text: String| span::parse(&text).ok_or_else(|| format!("{name}={text} is not a time"));
        self.named.remove(name).map(read).transpose()
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), String> {
        let named = self.named.iter().map(|(name, value)| format!("{name}={value}"));
        let left: Vec<String> = self.plain.into_iter().chain(named).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("not understood: {}", left.join(" "))) }
    }

    /// Whether `told` is what these words expect; otherwise what was told, as
    /// far as it was asked for.
    pub fn compare(&self, told: &Told) -> Result<(), String> {
        let mut fits = self.plain.iter().eq(&told.head);
        let mut actual = told.head.join(" ");
        for (name, expected) in &self.named {
            let Some(fact) = told.facts.get(name.as_str()) else {
                let known: Vec<&str> = told.facts.keys().copied().collect();
                return Err(format!(
                    "{actual}    ({name:?} is not among what is told: {})",
                    known.join(", ")
                ));
            };
            fits &= is_value(expected, fact);
            let sign = if NAMING.contains(&name.as_str()) { ' ' } else { '=' };
            let _ = write!(actual, " {name}{sign}{fact}");
        }
        if fits { Ok(()) } else { Err(actual) }
    }
}

/// Whether a fact is the expected one: the same text, the same length of time,
/// or one within `from..to`, both included.
fn is_value(expected: &str, fact: &str) -> bool {
    let range = expected
        .split_once("..")
        .and_then(|(from, to)| Some((span::parse(from)?, span::parse(to)?)));
    match (range, span::parse(expected), span::parse(fact)) {
        (Some((from, to)), _, Some(fact)) => (from..=to).contains(&fact),
        (None, Some(expected), Some(fact)) => expected == fact,
        _ => expected == fact,
    }
}

/// Splits at blanks, outside of double quotes.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    let mut quoted = false;
    for char in text.chars() {
        match char {
            '"' => quoted = !quoted,
            ' ' if !quoted => tokens.push(std::mem::take(&mut token)),
            char => token.push(char),
        }
    }
    tokens.push(token);
    tokens.retain(|token| !token.is_empty());
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(tokens) }
}
