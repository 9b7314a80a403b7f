//! Argo's expressions (expr-lang) as conditions (CEL).
//!
//! What is translated: `retries`, `lastRetry.exitCode`, `.status`, `.duration`,
//! `.message`; `asInt`, `asFloat`, `int`, `float`, `string`, `len`; numbers,
//! texts, lists, `true`, `false`; `and or not && || !`, comparisons, `in`,
//! `not in`, `contains`, `startsWith`, `endsWith`, `matches`, `+ - * / %` and
//! `? :`. The rest is refused where it stands.
//!
//! In Argo `retries`, exit code and duration are texts, and comparing a text
//! with a number ends the node as Error: that is refused here, too.

/// Longest chain of operators and brackets within one another.
const DEPTH_MAX: u32 = 32;

/// An expression that has been translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translated {
    /// It holds always, or never.
    Always(bool),
    /// The condition that says the same.
    Condition(String),
}

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where, in bytes from its beginning.
    pub at: usize,
    /// What is wrong, and what would be accepted.
    pub message: String,
}

/// Translates an expression that must say true or false.
///
/// # Errors
/// It is no expression, or says what a condition cannot.
pub fn translate(source: &str) -> Result<Translated, Refused> {
    let mut parser = Parser { words: words(source)?, next: 0, depth: 0, end: source.len() };
    let term = parser.choice()?;
    if let Some(word) = parser.words.get(parser.next) {
        return refuse(
            word.at,
            format!("{} does not belong here; accepted: an operator", word.token.in_words()),
        );
    }
    match (term.kind, term.text.as_str()) {
        (Kind::Truth, "true") => Ok(Translated::Always(true)),
        (Kind::Truth, "false") => Ok(Translated::Always(false)),
        (Kind::Truth, _) => Ok(Translated::Condition(term.text)),
        (kind, _) => refuse(term.at, format!("it gives {}, not true or false", kind.in_words())),
    }
}

fn refuse<T>(at: usize, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { at, message: message.into() })
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(String),
    Text(String),
    Name(String),
    Sign(&'static str),
}

impl Token {
    fn in_words(&self) -> String {
        match self {
            Self::Number(text) | Self::Name(text) => format!("`{text}`"),
            Self::Text(text) => format!("{text:?}"),
            Self::Sign(sign) => format!("`{sign}`"),
        }
    }
}

struct Word {
    token: Token,
    at: usize,
}

/// Signs, longer ones first.
const SIGNS: [&str; 27] = [
    "||", "&&", "==", "!=", "<=", ">=", "**", "..", "??", "?.", "<", ">", "!", "+", "-", "*", "/",
    "%", "^", "?", ":", ".", ",", "(", ")", "[", "]",
];

fn words(source: &str) -> Result<Vec<Word>, Refused> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        let (token, len) = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if c.is_ascii_digit() {
            number(rest)
        } else if c.is_alphabetic() || c == '_' {
            let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Name(rest[..len].to_owned()), len)
        } else if matches!(c, '"' | '\'' | '`') {
            quoted(rest, c, at)?
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return refuse(at, format!("`{c}` has no counterpart in a condition"));
        };
        words.push(Word { token, at });
        at += len;
    }
    Ok(words)
}

fn number(rest: &str) -> (Token, usize) {
    let digits =
        |text: &str| text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let mut len = digits(rest);
    let after = &rest[len..];
    // Two points are a range, not a fraction.
    if after.starts_with('.') && after[1..].starts_with(|c: char| c.is_ascii_digit()) {
        len += 1 + digits(&after[1..]);
    }
    (Token::Number(rest[..len].replace('_', "")), len)
}

fn quoted(rest: &str, quote: char, at: usize) -> Result<(Token, usize), Refused> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((place, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Token::Text(text), place + c.len_utf8())),
            '\\' if quote != '`' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c @ ('\\' | '\'' | '"' | '`')) => text.push(c),
                _ => {
                    return refuse(
                        at + place,
                        "an escape that is not translated; accepted: \\n, \\t, \\r, \\\\, \\' and \\\"",
                    );
                }
            },
            c => text.push(c),
        }
    }
    refuse(at, "a text without its end")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Truth,
    Whole,
    Real,
    Text,
    List(&'static Kind),
}

impl Kind {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Truth => "true or false",
            Self::Whole => "a whole number",
            Self::Real => "a number",
            Self::Text => "text",
            Self::List(_) => "a list",
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Whole | Self::Real)
    }
}

/// A part of the condition.
#[derive(Clone, Debug)]
struct Term {
    text: String,
    kind: Kind,
    /// Where it begins.
    at: usize,
    /// How tightly its outermost operator binds in CEL.
    binding: Binding,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Choice,
    Or,
    And,
    Relation,
    Sum,
    Product,
    Sign,
    Atom,
}

/// What is known of a term beyond its text.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    Other,
    /// A text of Argo's that is a number here.
    Number(&'static str),
    /// `lastRetry.duration`, a text of a number.
    Duration,
    /// `lastRetry.status`.
    Status,
    /// A text that is written out.
    Literal(String),
    /// A list of texts that are written out.
    Literals(Vec<String>),
}

impl Term {
    fn new(text: impl Into<String>, kind: Kind, at: usize, binding: Binding) -> Self {
        Self { text: text.into(), kind, at, binding, origin: Origin::Other }
    }

    fn atom(text: impl Into<String>, kind: Kind, at: usize) -> Self {
        Self::new(text, kind, at, Binding::Atom)
    }

    /// The text as an operand of an operator that binds so.
    fn within(&self, binding: Binding) -> String {
        if self.binding < binding { format!("({})", self.text) } else { self.text.clone() }
    }

    /// The text as an operand that must bind tighter.
    fn tighter(&self, binding: Binding) -> String {
        if self.binding <= binding { format!("({})", self.text) } else { self.text.clone() }
    }

    fn as_real(&self) -> String {
        match self.kind {
            Kind::Whole => format!("double({})", self.text),
            _ => self.within(Binding::Product),
        }
    }

    /// A text of Argo's that stands for a number must be made one first.
    fn refuse_text_as_number<T>(&self) -> Result<T, Refused> {
        let how = match self.origin {
            Origin::Number(_) => "text in Argo; write asInt(…) around it",
            Origin::Duration => "text in Argo; write asFloat(…) around it",
            _ => "text; accepted: a number",
        };
        refuse(self.at, how)
    }
}

/// Classes that Argo calls Error; the others it calls Failed.
const ERRORS: &str = "failure.class in [\"ERROR\", \"CRASH\"]";

struct Parser {
    words: Vec<Word>,
    next: usize,
    depth: u32,
    end: usize,
}

impl Parser {
    fn at(&self) -> usize {
        self.words.get(self.next).map_or(self.end, |word| word.at)
    }

    fn peek(&self) -> Option<&Token> {
        self.words.get(self.next).map(|word| &word.token)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(found)) if found == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Refused> {
        if self.takes(sign) {
            return Ok(());
        }
        refuse(self.at(), format!("accepted: `{sign}`"))
    }

    fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        if self.depth >= DEPTH_MAX {
            return refuse(self.at(), format!("accepted: at most {DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn choice(&mut self) -> Result<Term, Refused> {
        self.deeper(|parser| {
            let test = parser.or()?;
            if !parser.takes("?") {
                return Ok(test);
            }
            wants(&test, Kind::Truth)?;
            let one = parser.choice()?;
            parser.expect(":")?;
            let other = parser.choice()?;
            if one.kind != other.kind {
                return refuse(other.at, "both sides of ? : give the same kind of value");
            }
            let text = format!(
                "{} ? {} : {}",
                test.tighter(Binding::Choice),
                one.tighter(Binding::Choice),
                other.tighter(Binding::Choice)
            );
            Ok(Term::new(text, one.kind, test.at, Binding::Choice))
        })
    }

    fn or(&mut self) -> Result<Term, Refused> {
        let mut left = self.and()?;
        while self.takes("||") || self.takes_word("or") {
            let right = self.and()?;
            left = joined(&left, "||", &right, Binding::Or)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Term, Refused> {
        let mut left = self.relation()?;
        while self.takes("&&") || self.takes_word("and") {
            let right = self.relation()?;
            left = joined(&left, "&&", &right, Binding::And)?;
        }
        Ok(left)
    }

    fn relation(&mut self) -> Result<Term, Refused> {
        let mut left = self.sum()?;
        loop {
            let at = self.at();
            let relation = match self.peek() {
                Some(Token::Sign(sign @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => *sign,
                Some(Token::Name(name)) => match name.as_str() {
                    "in" => "in",
                    "not" => "not in",
                    "contains" => "contains",
                    "startsWith" => "startsWith",
                    "endsWith" => "endsWith",
                    "matches" => "matches",
                    _ => return Ok(left),
                },
                _ => return Ok(left),
            };
            self.next += 1;
            if relation == "not in" && !self.takes_word("in") {
                return refuse(at, "accepted: `not in`");
            }
            let right = self.sum()?;
            left = match relation {
                "==" | "!=" => equal(&left, relation, &right)?,
                "<" | "<=" | ">" | ">=" => ordered(&left, relation, &right)?,
                "in" | "not in" => within(&left, relation == "not in", &right)?,
                method => of_text(&left, method, &right)?,
            };
        }
    }

    fn sum(&mut self) -> Result<Term, Refused> {
        let mut left = self.product()?;
        loop {
            let sign = if self.takes("+") {
                "+"
            } else if self.takes("-") {
                "-"
            } else {
                return Ok(left);
            };
            let right = self.product()?;
            left = if sign == "+" && left.kind == Kind::Text && right.kind == Kind::Text {
                let text =
                    format!("{} + {}", left.within(Binding::Sum), right.tighter(Binding::Sum));
                Term::new(text, Kind::Text, left.at, Binding::Sum)
            } else {
                calculated(&left, sign, &right, Binding::Sum)?
            };
        }
    }

    fn product(&mut self) -> Result<Term, Refused> {
        let mut left = self.signed()?;
        loop {
            let sign = if self.takes("*") {
                "*"
            } else if self.takes("/") {
                "/"
            } else if self.takes("%") {
                "%"
            } else {
                return Ok(left);
            };
            let right = self.signed()?;
            left = calculated(&left, sign, &right, Binding::Product)?;
        }
    }

    fn signed(&mut self) -> Result<Term, Refused> {
        let at = self.at();
        if self.takes("!") || self.takes_word("not") {
            let term = self.deeper(Self::signed)?;
            wants(&term, Kind::Truth)?;
            let text = match term.text.as_str() {
                "true" => return Ok(Term::atom("false", Kind::Truth, at)),
                "false" => return Ok(Term::atom("true", Kind::Truth, at)),
                _ => format!("!{}", term.within(Binding::Sign)),
            };
            return Ok(Term::new(text, Kind::Truth, at, Binding::Sign));
        }
        if self.takes("-") {
            let term = self.deeper(Self::signed)?;
            if !term.kind.is_number() {
                return term.refuse_text_as_number();
            }
            let text = format!("-{}", term.tighter(Binding::Sign));
            return Ok(Term::new(text, term.kind, at, Binding::Sign));
        }
        if self.takes("+") {
            return self.deeper(Self::signed);
        }
        self.atom()
    }

    fn atom(&mut self) -> Result<Term, Refused> {
        let at = self.at();
        let Some(token) = self.peek().cloned() else {
            return refuse(at, "something is missing; accepted: a value");
        };
        self.next += 1;
        match token {
            Token::Number(text) if text.contains('.') => Ok(Term::atom(text, Kind::Real, at)),
            Token::Number(text) => Ok(Term::atom(text, Kind::Whole, at)),
            Token::Text(text) => Ok(literal(text, at)),
            Token::Sign("(") => {
                let term = self.choice()?;
                self.expect(")")?;
                Ok(Term { at, ..term })
            }
            Token::Sign("[") => self.list(at),
            Token::Name(name) => self.named(&name, at),
            Token::Sign(sign) => {
                refuse(at, format!("`{sign}` does not belong here; accepted: a value"))
            }
        }
    }

    fn list(&mut self, at: usize) -> Result<Term, Refused> {
        let mut items: Vec<Term> = Vec::new();
        while !self.takes("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            let item = self.choice()?;
            if items.first().is_some_and(|first| first.kind != item.kind) {
                return refuse(item.at, "the items of a list are of one kind");
            }
            items.push(item);
        }
        let kind = match items.first().map(|item| item.kind) {
            Some(Kind::Whole) => &Kind::Whole,
            Some(Kind::Text) => &Kind::Text,
            Some(kind) => {
                return refuse(
                    at,
                    format!("a list of {}; accepted: whole numbers or texts", kind.in_words()),
                );
            }
            None => return refuse(at, "an empty list; accepted: items"),
        };
        let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
        let text = format!("[{}]", texts.join(", "));
        let literals = items.iter().map(|item| match &item.origin {
            Origin::Literal(text) => Some(text.clone()),
            _ => None,
        });
        let origin = literals.collect::<Option<Vec<_>>>().map_or(Origin::Other, Origin::Literals);
        Ok(Term { origin, ..Term::atom(text, Kind::List(kind), at) })
    }

    fn named(&mut self, name: &str, at: usize) -> Result<Term, Refused> {
        match name {
            "true" | "false" => Ok(Term::atom(name, Kind::Truth, at)),
            "retries" => Ok(Term {
                origin: Origin::Number("step.retries"),
                ..Term::atom("string(step.retries)", Kind::Text, at)
            }),
            "lastRetry" => self.last_retry(at),
            "asInt" | "int" | "asFloat" | "float" | "string" | "len" => self.call(name, at),
            _ => refuse(
                at,
                format!(
                    "`{name}` has no counterpart in a condition; accepted: retries, \
                     lastRetry.exitCode, lastRetry.status, lastRetry.duration, lastRetry.message, \
                     asInt, asFloat, int, float, string and len"
                ),
            ),
        }
    }

    fn last_retry(&mut self, at: usize) -> Result<Term, Refused> {
        let field_at = self.at();
        let field = if self.takes(".") {
            self.peek().cloned()
        } else if self.takes("[") {
            match self.peek().cloned() {
                Some(Token::Text(text)) => Some(Token::Name(text)),
                _ => None,
            }
        } else {
            None
        };
        let bracketed = matches!(
            self.words.get(self.next.wrapping_sub(1)).map(|word| &word.token),
            Some(Token::Sign("["))
        );
        self.next += 1;
        let known = match field {
            Some(Token::Name(name)) => name,
            _ => String::new(),
        };
        if bracketed {
            self.expect("]")?;
        }
        let text = |text: &str, origin| Term { origin, ..Term::atom(text, Kind::Text, at) };
        match known.as_str() {
            "exitCode" => {
                Ok(text("string(failure.exit_code)", Origin::Number("failure.exit_code")))
            }
            "duration" => Ok(text("string(failure.duration_s)", Origin::Duration)),
            "message" => Ok(text("failure.message", Origin::Other)),
            "status" => Ok(Term {
                origin: Origin::Status,
                ..Term::new(
                    format!("{ERRORS} ? \"Error\" : \"Failed\""),
                    Kind::Text,
                    at,
                    Binding::Choice,
                )
            }),
            _ => refuse(
                field_at,
                "accepted: lastRetry.exitCode, lastRetry.status, lastRetry.duration and \
                 lastRetry.message",
            ),
        }
    }

    fn call(&mut self, name: &str, at: usize) -> Result<Term, Refused> {
        self.expect("(")?;
        let given = self.choice()?;
        self.expect(")")?;
        let atom = |text: String, kind| Ok(Term::atom(text, kind, at));
        match (name, given.kind, &given.origin) {
            ("asInt" | "int", _, Origin::Number(number)) => atom((*number).to_owned(), Kind::Whole),
            ("asFloat" | "float", _, Origin::Number(number)) => {
                atom(format!("double({number})"), Kind::Real)
            }
            ("asInt" | "int", _, Origin::Duration) => {
                atom("int(failure.duration_s)".to_owned(), Kind::Whole)
            }
            ("asFloat" | "float", _, Origin::Duration) => {
                atom("failure.duration_s".to_owned(), Kind::Real)
            }
            ("asInt" | "int", Kind::Whole, _) | ("asFloat" | "float", Kind::Real, _) => {
                Ok(Term { at, ..given })
            }
            ("asInt" | "int", Kind::Text | Kind::Real, _) => {
                atom(format!("int({})", given.text), Kind::Whole)
            }
            ("asFloat" | "float", Kind::Text | Kind::Whole, _) => {
                atom(format!("double({})", given.text), Kind::Real)
            }
            ("string", Kind::Text, _) => Ok(Term { at, ..given }),
            ("string", Kind::Whole | Kind::Real, _) => {
                atom(format!("string({})", given.text), Kind::Text)
            }
            ("len", Kind::Text, _) => atom(format!("size({})", given.text), Kind::Whole),
            (_, kind, _) => refuse(given.at, format!("{name}() of {}", kind.in_words())),
        }
    }
}

fn literal(text: String, at: usize) -> Term {
    let mut written = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            c => written.push(c),
        }
    }
    written.push('"');
    Term { origin: Origin::Literal(text), ..Term::atom(written, Kind::Text, at) }
}

fn wants(term: &Term, kind: Kind) -> Result<(), Refused> {
    if term.kind == kind {
        return Ok(());
    }
    refuse(term.at, format!("this gives {}; accepted: {}", term.kind.in_words(), kind.in_words()))
}

fn joined(left: &Term, sign: &str, right: &Term, binding: Binding) -> Result<Term, Refused> {
    wants(left, Kind::Truth)?;
    wants(right, Kind::Truth)?;
    let text = format!("{} {sign} {}", left.within(binding), right.tighter(binding));
    Ok(Term::new(text, Kind::Truth, left.at, binding))
}

fn related(left: &str, sign: &str, right: &str, at: usize) -> Term {
    Term::new(format!("{left} {sign} {right}"), Kind::Truth, at, Binding::Relation)
}

fn equal(left: &Term, sign: &str, right: &Term) -> Result<Term, Refused> {
    let (variable, value) = match (&left.origin, &right.origin) {
        (Origin::Literal(_), _) => (right, left),
        _ => (left, right),
    };
    match (&variable.origin, &value.origin) {
        // "3" is the number 3; "03" is no number that Argo would write.
        (Origin::Number(number), Origin::Literal(text)) if is_whole(text) => {
            return Ok(related(number, sign, text, left.at));
        }
        (Origin::Status, Origin::Literal(text)) => {
            let is_error = match text.as_str() {
                "Error" => true,
                "Failed" => false,
                _ => {
                    return refuse(
                        value.at,
                        "a status of a failed attempt; accepted: \"Error\" or \"Failed\"",
                    );
                }
            };
            return Ok(status(is_error == (sign == "=="), left.at));
        }
        (Origin::Duration, _) => return variable.refuse_text_as_number(),
        _ => {}
    }
    match (left.kind, right.kind) {
        (a, b) if a == b && !matches!(a, Kind::List(_)) => {}
        (a, b) if a.is_number() && b.is_number() => {}
        (Kind::Text, b) if b.is_number() => return left.refuse_text_as_number(),
        (a, Kind::Text) if a.is_number() => return right.refuse_text_as_number(),
        (a, b) => {
            return refuse(
                right.at,
                format!("{} is not compared with {}", a.in_words(), b.in_words()),
            );
        }
    }
    let sides = (left.tighter(Binding::Relation), right.tighter(Binding::Relation));
    Ok(related(&sides.0, sign, &sides.1, left.at))
}

fn is_whole(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
}

/// Whether the attempt ended as Error, or as Failed.
fn status(error: bool, at: usize) -> Term {
    if error {
        Term::new(ERRORS, Kind::Truth, at, Binding::Relation)
    } else {
        Term::new(format!("!({ERRORS})"), Kind::Truth, at, Binding::Sign)
    }
}

fn ordered(left: &Term, sign: &str, right: &Term) -> Result<Term, Refused> {
    for (term, other) in [(left, right), (right, left)] {
        let stands_for_number = matches!(term.origin, Origin::Number(_) | Origin::Duration);
        if term.kind == Kind::Text && (other.kind.is_number() || stands_for_number) {
            return term.refuse_text_as_number();
        }
        if !term.kind.is_number() && term.kind != Kind::Text {
            return refuse(term.at, format!("{} has no order", term.kind.in_words()));
        }
    }
    let sides = (left.tighter(Binding::Relation), right.tighter(Binding::Relation));
    Ok(related(&sides.0, sign, &sides.1, left.at))
}

fn within(left: &Term, negated: bool, right: &Term) -> Result<Term, Refused> {
    let Kind::List(item) = right.kind else {
        return refuse(right.at, "accepted: a list, as in [1, 2]");
    };
    let found = match (&left.origin, &right.origin) {
        (Origin::Number(number), Origin::Literals(texts))
            if texts.iter().all(|text| text.parse::<i64>().is_ok()) =>
        {
            related(number, "in", &format!("[{}]", texts.join(", ")), left.at)
        }
        (Origin::Status, Origin::Literals(texts)) => {
            let has = |name: &str| texts.iter().any(|text| text == name);
            match (has("Error"), has("Failed")) {
                (true, true) => Term::atom("true", Kind::Truth, left.at),
                (false, false) => Term::atom("false", Kind::Truth, left.at),
                (error, _) => status(error, left.at),
            }
        }
        _ if left.kind == *item => {
            related(&left.tighter(Binding::Relation), "in", &right.text, left.at)
        }
        _ if left.kind == Kind::Text => return left.refuse_text_as_number(),
        _ => {
            return refuse(
                left.at,
                format!("{} is not in a list of {}", left.kind.in_words(), item.in_words()),
            );
        }
    };
    match (negated, found.text.as_str()) {
        (false, _) => Ok(found),
        (true, "true") => Ok(Term { text: "false".to_owned(), ..found }),
        (true, "false") => Ok(Term { text: "true".to_owned(), ..found }),
        (true, _) => {
            let text = format!("!({})", found.text);
            Ok(Term::new(text, Kind::Truth, left.at, Binding::Sign))
        }
    }
}

fn of_text(left: &Term, method: &str, right: &Term) -> Result<Term, Refused> {
    wants(left, Kind::Text)?;
    wants(right, Kind::Text)?;
    if method == "matches" && !matches!(right.origin, Origin::Literal(_)) {
        return refuse(right.at, "a pattern that is not written out; accepted: a text");
    }
    let text = format!("{}.{method}({})", left.within(Binding::Atom), right.text);
    Ok(Term::atom(text, Kind::Truth, left.at))
}

fn calculated(left: &Term, sign: &str, right: &Term, binding: Binding) -> Result<Term, Refused> {
    for term in [left, right] {
        if term.kind == Kind::Text {
            return term.refuse_text_as_number();
        }
        if !term.kind.is_number() {
            return refuse(term.at, format!("{} is no number", term.kind.in_words()));
        }
    }
    let both_whole = left.kind == Kind::Whole && right.kind == Kind::Whole;
    if sign == "%" && !both_whole {
        return refuse(left.at, "% of a fraction; accepted: whole numbers");
    }
    // Division always gives a fraction in Argo.
    if both_whole && sign != "/" {
        let text = format!("{} {sign} {}", left.within(binding), right.tighter(binding));
        return Ok(Term::new(text, Kind::Whole, left.at, binding));
    }
    let right = if right.kind == Kind::Whole { right.as_real() } else { right.tighter(binding) };
    let left_text = if left.kind == Kind::Whole { left.as_real() } else { left.within(binding) };
    Ok(Term::new(format!("{left_text} {sign} {right}"), Kind::Real, left.at, binding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::condition::Condition;

    fn condition(source: &str) -> String {
        match translate(source) {
            Ok(Translated::Condition(condition)) => condition,
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn what_argo_users_write_is_translated() {
        for (argo, cel) in [
            ("asInt(lastRetry.exitCode) > 1", "failure.exit_code > 1"),
            ("lastRetry.exitCode == \"2\"", "failure.exit_code == 2"),
            ("'2' != lastRetry.exitCode", "failure.exit_code != 2"),
            ("lastRetry.exitCode in ['1', \"137\"]", "failure.exit_code in [1, 137]"),
            ("asInt(lastRetry.exitCode) not in [2, 3]", "!(failure.exit_code in [2, 3])"),
            ("lastRetry.status == \"Error\"", "failure.class in [\"ERROR\", \"CRASH\"]"),
            ("lastRetry.status != 'Error'", "!(failure.class in [\"ERROR\", \"CRASH\"])"),
            ("asInt(retries) < 3", "step.retries < 3"),
            ("retries == '0'", "step.retries == 0"),
            ("asFloat(lastRetry.duration) < 30", "failure.duration_s < 30"),
            (
                "lastRetry.message contains 'imminent node shutdown' || lastRetry.message matches `node (a|b)\\d`",
                "failure.message.contains(\"imminent node shutdown\") || failure.message.matches(\"node (a|b)\\\\d\")",
            ),
            (
                "asInt(lastRetry.exitCode) > 1 and not (lastRetry.status == 'Failed' or false)",
                "failure.exit_code > 1 && !(!(failure.class in [\"ERROR\", \"CRASH\"]) || false)",
            ),
            ("(asInt(retries) + 1) * 2 <= 8", "(step.retries + 1) * 2 <= 8"),
            ("asInt(retries) / 2 < 1.5", "double(step.retries) / double(2) < 1.5"),
            (
                "asInt(retries) < 2 ? true : lastRetry.message == ''",
                "step.retries < 2 ? true : failure.message == \"\"",
            ),
            ("lastRetry[\"exitCode\"] == '7'", "failure.exit_code == 7"),
            ("len(lastRetry.message) > 3", "size(failure.message) > 3"),
            ("asInt(lastRetry.exitCode) == -1", "failure.exit_code == -1"),
        ] {
            let translated = condition(argo);
            assert_eq!(translated, cel, "{argo}");
            Condition::parse(&translated).unwrap_or_else(|error| panic!("{cel}: {error}"));
        }
        assert_eq!(translate("true"), Ok(Translated::Always(true)));
        assert_eq!(translate("!true"), Ok(Translated::Always(false)));
    }

    #[test]
    fn what_has_no_counterpart_is_refused_where_it_stands() {
        for (argo, at, said) in [
            ("lastRetry.exitCode > 1", 0, "text in Argo; write asInt"),
            ("1 < retries", 4, "text in Argo; write asInt"),
            ("asInt(lastRetry.exitCode)", 0, "a whole number, not true or false"),
            ("sprig.upper(lastRetry.message) == 'X'", 0, "`sprig` has no counterpart"),
            ("true && workflow.name == 'a'", 8, "`workflow` has no counterpart"),
            ("any([1], {# > 1})", 9, "has no counterpart"),
            ("lastRetry.colour == 'a'", 9, "accepted: lastRetry.exitCode"),
            ("lastRetry.status == 'Succeeded'", 20, "\"Error\" or \"Failed\""),
            ("asInt(retries) <", 16, "something is missing"),
            ("asInt(retries) < 3)", 18, "does not belong here"),
            ("'abc", 0, "without its end"),
            ("", 0, "something is missing"),
            ("2 ** 3 == 8", 2, "does not belong here"),
        ] {
            let refused = translate(argo).unwrap_err();
            assert_eq!(refused.at, at, "{argo}: {}", refused.message);
            assert!(refused.message.contains(said), "{argo}: {}", refused.message);
        }
        assert!(translate(&"(".repeat(10_000)).is_err());
        assert!(translate(&"!".repeat(10_000)).is_err());
    }
}
