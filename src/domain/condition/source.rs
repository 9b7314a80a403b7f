//! The source of a condition, word by word: its bounds, its parsing, and where a refusal points.

use cel::IdedExpr;
use cel::parser::pratt_parser::{Lexer, PrattParser, TokenKind};

use super::{ConditionError, SOURCE_BYTES_MAX};

/// Names, literals and signs in a source. Together with the two bounds below it bounds how deep
/// the parser and the parsed form can nest.
const WORDS_MAX: usize = 512;

/// Brackets within brackets.
const BRACKETS_DEPTH_MAX: u16 = 16;

/// Conditionals (`? :`), since each may stand in the branch of another.
const CHOICES_MAX: usize = 16;

/// Longest excerpt in a message, in characters.
const EXCERPT_CHARS_MAX: usize = 60;

/// What the parser would write out as a loop.
const LOOPS: [&str; 6] = ["all", "exists", "exists_one", "existsOne", "map", "filter"];

/// A source within the bounds that keep the parser's stack small.
pub(super) struct Source<'a> {
    text: &'a str,
    words: Vec<Word>,
}

impl<'a> Source<'a> {
    /// Reads the words, and refuses a source that has too many, or nests too deep.
    pub fn read(text: &'a str) -> Result<Self, ConditionError> {
        if text.len() > SOURCE_BYTES_MAX {
            let problem = format!("the condition has {} bytes", text.len());
            let accepted = format!("at most {SOURCE_BYTES_MAX} bytes");
            return Err(refusal(text, Span::START, problem, accepted));
        }
        let source = Self { text, words: words(text)? };
        source.check_bounds()?;
        source.check_loops()?;
        Ok(source)
    }

    fn check_bounds(&self) -> Result<(), ConditionError> {
        let (mut depth, mut choices) = (0_u16, 0);
        for (index, word) in self.words.iter().enumerate() {
            match (word.side(), word.kind) {
                (Some(Side::Open), _) => depth += 1,
                (Some(Side::Close), _) => depth = depth.saturating_sub(1),
                (None, TokenKind::TokQuestion) => choices += 1,
                (None, _) => {}
            }
            let (problem, accepted) = if index == WORDS_MAX {
                ("too many names, literals and signs", WORDS_MAX)
            } else if depth > BRACKETS_DEPTH_MAX {
                ("too many brackets within brackets", BRACKETS_DEPTH_MAX.into())
            } else if choices > CHOICES_MAX {
                ("too many conditionals (? :)", CHOICES_MAX)
            } else {
                continue;
            };
            return Err(refusal(self.text, word.span, problem, format!("at most {accepted}")));
        }
        Ok(())
    }

    /// The parser would write a loop out, so it is kept from seeing one.
    fn check_loops(&self) -> Result<(), ConditionError> {
        for call in self.words.windows(3) {
            let [dot, name, bracket] = [call[0], call[1], call[2]];
            let word = excerpt(self.text, name.span);
            if dot.kind == TokenKind::TokDot
                && bracket.kind == TokenKind::TokLeftParen
                && LOOPS.contains(&&*word)
            {
                let problem = format!("{word}() loops over a list");
                let accepted = "what takes one step, such as `137 in last_exit_codes`";
                return Err(refusal(self.text, name.span, problem, accepted));
            }
        }
        Ok(())
    }

    /// The parsed form. Chains of && and || come as one node each, so that long ones stay flat.
    pub fn parse(&self) -> Result<IdedExpr, ConditionError> {
        PrattParser::new()
            .max_recursion_depth(BRACKETS_DEPTH_MAX + 1)
            .enable_variadic_operator_asts(true)
            .parse(self.text)
            .map_err(|errors| {
                let first = errors.errors.first();
                let problem = first.map_or("not readable", |error| &error.msg);
                let problem = problem.strip_prefix("Syntax error: ").unwrap_or(problem);
                let start = first.map_or(0, |error| self.offset(error.pos));
                let span = Span { start, end: self.text.len() };
                refusal(self.text, span, problem, "CEL syntax")
            })
    }

    /// The parser's line and column, both from 1 and in bytes, as an offset into the source.
    fn offset(&self, (line, column): (isize, isize)) -> usize {
        let index = |from_one: isize| usize::try_from(from_one).map_or(0, |n| n.saturating_sub(1));
        let lines = self.text.split_inclusive('\n').take(index(line));
        lines.map(str::len).sum::<usize>() + index(column)
    }

    /// The words that the parsed form has too, in the same order: names and literals.
    pub fn atoms(&self) -> Vec<Span> {
        let is_atom = |word: &&Word| {
            matches!(
                word.kind,
                TokenKind::TokIdent
                    | TokenKind::TokReservedWord
                    | TokenKind::TokNull
                    | TokenKind::TokTrue
                    | TokenKind::TokFalse
                    | TokenKind::TokInt
                    | TokenKind::TokUint
                    | TokenKind::TokFloat
                    | TokenKind::TokString
                    | TokenKind::TokBytes
            )
        };
        self.words.iter().filter(is_atom).map(|word| word.span).collect()
    }

    /// The refusal of what was written there.
    pub fn refusal(
        &self,
        span: Span,
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) -> ConditionError {
        refusal(self.text, self.balanced(span), problem, accepted)
    }

    /// Spans reach from name to name; this adds the brackets around them whose other half lies
    /// inside.
    fn balanced(&self, span: Span) -> Span {
        let first = self.words.partition_point(|word| word.span.start < span.start);
        let after = self.words.partition_point(|word| word.span.start < span.end).max(first);
        let (before, inside, after) =
            (&self.words[..first], &self.words[first..after], &self.words[after..]);
        let (mut unclosed, mut unopened) = (0_usize, 0_usize);
        for word in inside {
            match word.side() {
                Some(Side::Open) => unclosed += 1,
                Some(Side::Close) if unclosed > 0 => unclosed -= 1,
                Some(Side::Close) => unopened += 1,
                None => {}
            }
        }
        let openings = before.iter().rev().filter(|word| word.side() == Some(Side::Open));
        let closings = after.iter().filter(|word| word.side() == Some(Side::Close));
        Span {
            start: openings.take(unopened).last().map_or(span.start, |word| word.span.start),
            end: closings.take(unclosed).last().map_or(span.end, |word| word.span.end),
        }
    }
}

fn words(source: &str) -> Result<Vec<Word>, ConditionError> {
    let mut words = Vec::new();
    let mut lexer = Lexer::new(source);
    loop {
        let token = lexer.lex();
        let span = Span { start: token.start, end: token.end };
        match token.kind {
            TokenKind::TokEnd if words.is_empty() => {
                let accepted = "an expression; `true` always holds";
                return Err(refusal(source, Span::START, "the condition is empty", accepted));
            }
            TokenKind::TokEnd => return Ok(words),
            TokenKind::TokWhitespace | TokenKind::TokComment => {}
            TokenKind::TokError => {
                let reason = lexer.get_error().map_or("not readable", |error| &error.message);
                return Err(refusal(source, span, reason, "CEL syntax"));
            }
            kind => words.push(Word { kind, span }),
        }
    }
}

/// A stretch of the source, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

impl Span {
    pub const START: Self = Self { start: 0, end: 0 };

    pub fn to(self, end: Self) -> Self {
        Self { start: self.start, end: end.end }
    }

    /// The same stretch, widened to whole characters of the source and cut to its length.
    fn of_whole_chars(self, source: &str) -> Self {
        let is_boundary = |at: &usize| source.is_char_boundary(*at);
        let start = self.start.min(source.len());
        let end = self.end.clamp(start, source.len());
        Self {
            start: (0..=start).rev().find(is_boundary).unwrap_or(0),
            end: (end..=source.len()).find(is_boundary).unwrap_or(source.len()),
        }
    }
}

/// A name, literal or sign of the source.
#[derive(Clone, Copy)]
struct Word {
    kind: TokenKind,
    span: Span,
}

/// Which half of a pair of brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    Close,
}

impl Word {
    fn side(self) -> Option<Side> {
        match self.kind {
            TokenKind::TokLeftParen | TokenKind::TokLeftBracket | TokenKind::TokLeftBrace => {
                Some(Side::Open)
            }
            TokenKind::TokRightParen | TokenKind::TokRightBracket | TokenKind::TokRightBrace => {
                Some(Side::Close)
            }
            _ => None,
        }
    }
}

/// The refusal of a stretch of the text.
fn refusal(
    text: &str,
    span: Span,
    problem: impl Into<String>,
    accepted: impl Into<String>,
) -> ConditionError {
    let span = span.of_whole_chars(text);
    let before = &text[..span.start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    ConditionError {
        problem: problem.into(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        excerpt: excerpt(text, span),
        accepted: accepted.into(),
    }
}

/// That stretch on one line: at most [`EXCERPT_CHARS_MAX`] characters, control characters escaped.
fn excerpt(text: &str, span: Span) -> String {
    let stretch = text.get(span.start..span.end).unwrap_or_default();
    let mut chars = stretch.trim_end().chars();
    let mut excerpt = String::new();
    for c in chars.by_ref().take(EXCERPT_CHARS_MAX) {
        if c.is_control() {
            excerpt.extend(c.escape_default());
        } else {
            excerpt.push(c);
        }
    }
    if chars.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}
