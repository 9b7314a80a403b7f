//! From a source to a checked tree.
//!
//! The parsed form is checked and compiled node by node. The parser keeps no positions of what it
//! accepts; but names and literals come in the same order in both, so the walk counts them off and
//! knows where it is.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, operators};

use super::expression::{Arithmetic, Choice, Double, Int, Place, Relation, Test, Text, Value};
use super::fields::{Field, fields, names};
use super::source::{Source, Span};
use super::{ConditionError, ConditionScope, EvaluationError, FailureClass, FailureView, StepView};
use crate::domain::pattern::Pattern;

/// Nodes of the parsed form.
const NODES_MAX: usize = 256;

/// Nodes within nodes.
const NODES_DEPTH_MAX: usize = 64;

/// Patterns, since each may take a quarter of a megabyte, and some milliseconds to compile.
const PATTERNS_MAX: usize = 8;

const VARIABLES: &str = "failure, step, last_exit_codes";

const FUNCTIONS: &str = "count, consecutive, size, int, double, string, has";

const METHODS: &str = "startsWith, endsWith, contains, matches, size";

type Compiled<T> = Result<T, ConditionError>;

pub(super) fn compile(text: &str) -> Compiled<Test> {
    let source = Source::read(text)?;
    let parsed = source.parse()?;
    let atoms = source.atoms();
    let mut compiler = Compiler { source, atoms, next: 0, nodes: 0, depth: 0, patterns: 0 };
    let Part { value, span } = compiler.part(&parsed)?;
    debug_assert_eq!(compiler.next, compiler.atoms.len(), "lost count in {text}");
    match value {
        Value::Test(test) => Ok(test),
        other => Err(compiler.refusal(
            span,
            format!("the condition is {}, not a bool", other.kind()),
            "what is true or false, such as a comparison",
        )),
    }
}

/// A checked value, and where it was written.
struct Part {
    value: Value,
    span: Span,
}

struct Compiler<'a> {
    source: Source<'a>,
    /// Names and literals, and the index of the next one to meet.
    atoms: Vec<Span>,
    next: usize,
    /// Nodes met so far, and how deep the present one lies.
    nodes: usize,
    depth: usize,
    patterns: usize,
}

impl Compiler<'_> {
    fn part(&mut self, node: &IdedExpr) -> Compiled<Part> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let accepted = format!("at most {NODES_MAX} operands and operations");
            return Err(self.refusal_here("the condition is too large", accepted));
        }
        self.depth += 1;
        if self.depth > NODES_DEPTH_MAX {
            let accepted = format!("at most {NODES_DEPTH_MAX} operations within operations");
            return Err(self.refusal_here("the condition is nested too deeply", accepted));
        }
        let start = self.here();
        let value = self.value(&node.expr)?;
        self.depth -= 1;
        Ok(Part { value, span: start.to(self.last()) })
    }

    fn value(&mut self, expr: &Expr) -> Compiled<Value> {
        match expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) if select.test => self.presence(select),
            Expr::Select(select) => self.field(select).map(Field::read),
            Expr::Call(call) => match &call.target {
                Some(target) => self.method(target, call),
                None => self.operation(call),
            },
            Expr::List(_) => Err(self.refusal_here("a list stands alone", "a list after `in`")),
            Expr::Map(_) | Expr::Struct(_) => {
                Err(self
                    .refusal_here("a map or message is of no use here", "strings, numbers, bools"))
            }
            Expr::Comprehension(_) => {
                Err(self.refusal_here("a loop over a list", "what takes one step"))
            }
            Expr::Unspecified => Err(self.refusal_here("an expression is missing", "CEL syntax")),
        }
    }

    fn literal(&mut self, literal: &LiteralValue) -> Compiled<Value> {
        let span = self.take();
        match literal {
            LiteralValue::Boolean(truth) => Ok(Value::Test(Test::Const(*truth.inner()))),
            LiteralValue::Int(value) => Ok(Value::Int(Int::Const(*value.inner()))),
            LiteralValue::Double(value) => Ok(Value::Double(Double::Const(*value.inner()))),
            LiteralValue::String(value) => Ok(Value::Text(Text::Const(value.inner().into()))),
            LiteralValue::UInt(_) => {
                Err(self.refusal(span, "an unsigned int", "an int, without the u"))
            }
            LiteralValue::Bytes(_) => Err(self.refusal(span, "bytes", "a string, without the b")),
            LiteralValue::Null => Err(self.refusal(
                span,
                "null: nothing is ever null here",
                "has(failure.code), or comparing with \"\", -1 or 0 as the reference says",
            )),
        }
    }

    fn variable(&mut self, name: &str) -> Compiled<Value> {
        let span = self.take();
        match name {
            "last_exit_codes" => Ok(Value::ExitCodes),
            "failure" | "step" => Err(self.refusal(
                span,
                format!("{name} stands alone"),
                format!("a field of it: {}", names(fields(name).unwrap_or_default())),
            )),
            _ => Err(self.refusal(span, format!("unknown variable {name}"), VARIABLES)),
        }
    }

    fn field(&mut self, select: &SelectExpr) -> Compiled<&'static Field> {
        let Expr::Ident(owner) = &select.operand.expr else {
            let part = self.part(&select.operand)?;
            let problem = format!("{} has no field {}", part.value.kind(), select.field);
            return Err(self.refusal(part.span, problem, "fields of failure and step"));
        };
        let span = self.take();
        let Some(fields) = fields(owner) else {
            let problem = format!("unknown variable {owner}");
            return Err(self.refusal(span, problem, VARIABLES));
        };
        let span = span.to(self.take());
        fields.iter().find(|field| field.name == select.field).ok_or_else(|| {
            let problem = format!("unknown field {} of {owner}", select.field);
            self.refusal(span, problem, names(fields))
        })
    }

    /// `has(failure.code)`.
    fn presence(&mut self, select: &SelectExpr) -> Compiled<Value> {
        self.take();
        self.field(select).map(|field| Value::Test(field.is_present()))
    }

    fn operation(&mut self, call: &CallExpr) -> Compiled<Value> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, args) => Ok(Value::Test(Test::All(self.tests(args)?))),
            (operators::LOGICAL_OR, args) => Ok(Value::Test(Test::Any(self.tests(args)?))),
            (operators::LOGICAL_NOT, [arg]) => {
                Ok(Value::Test(Test::Not(Box::new(self.test(arg)?))))
            }
            (operators::CONDITIONAL, [on, yes, no]) => self.choice(on, yes, no),
            (operators::IN, [needle, list]) => self.membership(needle, list),
            (operators::INDEX, [list, index]) => self.element(list, index),
            (operators::NEGATE, [arg]) => self.negation(arg),
            (name, [left, right]) => match (relation(name), arithmetic(name)) {
                (Some(relation), _) => self.comparison(relation, left, right),
                (_, Some(arithmetic)) => self.arithmetic(arithmetic, left, right),
                (None, None) => self.function(name, &call.args),
            },
            (name, args) => self.function(name, args),
        }
    }

    fn tests(&mut self, nodes: &[IdedExpr]) -> Compiled<Box<[Test]>> {
        nodes.iter().map(|node| self.test(node)).collect()
    }

    fn test(&mut self, node: &IdedExpr) -> Compiled<Test> {
        match self.part(node)? {
            Part { value: Value::Test(test), .. } => Ok(test),
            part => Err(self.wrong_kind(&part, "a bool")),
        }
    }

    fn text(&mut self, node: &IdedExpr) -> Compiled<Text> {
        match self.part(node)? {
            Part { value: Value::Text(text), .. } => Ok(text),
            part => Err(self.wrong_kind(&part, "a string")),
        }
    }

    fn choice(&mut self, on: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Compiled<Value> {
        let on = self.test(on)?;
        let (yes, no) = (self.part(yes)?, self.part(no)?);
        Ok(match (yes.value, no.value) {
            (Value::Test(yes), Value::Test(no)) => {
                Value::Test(Test::Choice(Box::new(Choice { on, yes, no })))
            }
            (Value::Int(yes), Value::Int(no)) => {
                Value::Int(Int::Choice(Box::new(Choice { on, yes, no })))
            }
            (Value::Double(yes), Value::Double(no)) => {
                Value::Double(Double::Choice(Box::new(Choice { on, yes, no })))
            }
            (Value::Text(yes), Value::Text(no)) => {
                Value::Text(Text::Choice(Box::new(Choice { on, yes, no })))
            }
            (left, right) => {
                let problem = format!("the branches are {} and {}", left.kind(), right.kind());
                let span = yes.span.to(no.span);
                return Err(self.refusal(span, problem, "two bools, ints, doubles or strings"));
            }
        })
    }

    fn comparison(
        &mut self,
        relation: Relation,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Compiled<Value> {
        let (left, right) = (self.part(left)?, self.part(right)?);
        let span = left.span.to(right.span);
        let ordered = !matches!(relation, Relation::Equal | Relation::NotEqual);
        Ok(Value::Test(match (left.value, right.value) {
            (Value::Int(left), Value::Int(right)) => Test::Ints(relation, Box::new((left, right))),
            (Value::Double(left), Value::Double(right)) => {
                Test::Doubles(relation, Box::new((left, right)))
            }
            (Value::Int(left), Value::Double(right)) => {
                Test::IntToDouble(relation, Box::new((left, right)))
            }
            (Value::Double(left), Value::Int(right)) => {
                Test::IntToDouble(relation.mirrored(), Box::new((right, left)))
            }
            (Value::Text(left), Value::Text(right)) => {
                self.check_words(&left, &right, span)?;
                Test::Texts(relation, Box::new((left, right)))
            }
            (Value::Test(left), Value::Test(right)) if !ordered => {
                Test::Tests(relation, Box::new((left, right)))
            }
            (left, right) => {
                let problem = format!("{} is compared with {}", left.kind(), right.kind());
                let accepted = "two strings, two numbers (int() and double() convert), or with == and != two bools";
                return Err(self.refusal(span, problem, accepted));
            }
        }))
    }

    /// A field that can only be one of a few words is never equal to another one, so comparing it
    /// with that is a slip.
    fn check_words(&self, left: &Text, right: &Text, span: Span) -> Compiled<()> {
        let (words, word) = match (left, right) {
            (Text::Field(_, words), Text::Const(word)) => (*words, word),
            (Text::Const(word), Text::Field(_, words)) => (*words, word),
            _ => return Ok(()),
        };
        if words.is_empty() || words.contains(&&**word) {
            return Ok(());
        }
        let known: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        Err(self.refusal(span, format!("it is never {word:?}"), known.join(", ")))
    }

    fn membership(&mut self, needle: &IdedExpr, list: &IdedExpr) -> Compiled<Value> {
        let needle = self.part(needle)?;
        let Expr::List(list) = &list.expr else {
            let list = self.part(list)?;
            return match (needle.value, list.value) {
                (Value::Int(needle), Value::ExitCodes) => {
                    Ok(Value::Test(Test::InExitCodes(Box::new(needle))))
                }
                (needle, list_value) => {
                    let problem = format!("{} in {}", needle.kind(), list_value.kind());
                    let accepted =
                        "an int in last_exit_codes, or anything in a list of its type: [137, 143]";
                    Err(self.refusal(list.span, problem, accepted))
                }
            };
        };
        if list.elements.is_empty() {
            return Err(self.refusal(
                needle.span,
                "the list after `in` is empty",
                "at least one element",
            ));
        }
        match needle.value {
            Value::Int(needle) => self
                .elements(&list.elements, "an int", |value| match value {
                    Value::Int(int) => Ok(int),
                    other => Err(other),
                })
                .map(|list| Value::Test(Test::IntIn(Box::new(needle), list))),
            Value::Double(needle) => self
                .elements(&list.elements, "a double, such as 5.0", |value| match value {
                    Value::Double(double) => Ok(double),
                    other => Err(other),
                })
                .map(|list| Value::Test(Test::DoubleIn(Box::new(needle), list))),
            Value::Text(text) => {
                let list = self.elements(&list.elements, "a string", |value| match value {
                    Value::Text(text) => Ok(text),
                    other => Err(other),
                })?;
                let span = needle.span.to(self.last());
                list.iter().try_for_each(|word| self.check_words(&text, word, span))?;
                Ok(Value::Test(Test::TextIn(Box::new(text), list)))
            }
            Value::Test(_) | Value::ExitCodes => {
                let accepted = "an int, double or string in a list";
                Err(self.refusal(
                    needle.span,
                    format!("{} in a list", needle.value.kind()),
                    accepted,
                ))
            }
        }
    }

    /// The elements of a list, all of one type.
    fn elements<T>(
        &mut self,
        nodes: &[IdedExpr],
        accepted: &str,
        of_type: impl Fn(Value) -> Result<T, Value>,
    ) -> Compiled<Box<[T]>> {
        nodes
            .iter()
            .map(|node| {
                let Part { value, span } = self.part(node)?;
                of_type(value).map_err(|value| self.wrong_kind(&Part { value, span }, accepted))
            })
            .collect()
    }

    fn element(&mut self, list: &IdedExpr, index: &IdedExpr) -> Compiled<Value> {
        if let Part { value, span } = self.part(list)?
            && !matches!(value, Value::ExitCodes)
        {
            let problem = format!("{} has no elements", value.kind());
            return Err(self.refusal(span, problem, "last_exit_codes[0]"));
        }
        match self.part(index)? {
            Part { value: Value::Int(Int::Const(index)), span } if index < 0 => Err(self.refusal(
                span,
                format!("there is no element {index}"),
                "0 for the newest, up to 15",
            )),
            Part { value: Value::Int(index), .. } => Ok(Value::Int(Int::ExitCode(Box::new(index)))),
            part => Err(self.wrong_kind(&part, "an int")),
        }
    }

    fn negation(&mut self, node: &IdedExpr) -> Compiled<Value> {
        let part = self.part(node)?;
        match part.value {
            Value::Int(value) => self.settled_int(Int::Negated(Box::new(value)), part.span),
            Value::Double(value) => Ok(Value::Double(Double::Negated(Box::new(value)))),
            _ => Err(self.wrong_kind(&part, "an int or a double")),
        }
    }

    fn arithmetic(
        &mut self,
        arithmetic: Arithmetic,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Compiled<Value> {
        let (left, right) = (self.part(left)?, self.part(right)?);
        let span = left.span.to(right.span);
        match (left.value, right.value, arithmetic) {
            (Value::Int(left), Value::Int(right), _) => {
                self.settled_int(Int::Result(arithmetic, Box::new((left, right))), span)
            }
            (Value::Double(_), Value::Double(_), Arithmetic::Remainder) => {
                Err(self.refusal(span, "the remainder of doubles", "% of two ints"))
            }
            (Value::Double(left), Value::Double(right), _) => {
                Ok(Value::Double(Double::Result(arithmetic, Box::new((left, right)))))
            }
            (Value::Text(left), Value::Text(right), Arithmetic::Add) => {
                Ok(Value::Text(Text::Joined(Box::new((left, right)))))
            }
            (left, right, _) => {
                let problem = format!("arithmetic on {} and {}", left.kind(), right.kind());
                let accepted = "two ints, two doubles, or + on two strings; int(), double() and string() convert";
                Err(self.refusal(span, problem, accepted))
            }
        }
    }

    fn function(&mut self, name: &str, args: &[IdedExpr]) -> Compiled<Value> {
        let span = self.take();
        match (name, args) {
            ("count", [class]) => Ok(Value::Int(Int::Count(self.class(class)?))),
            ("consecutive", [class]) => Ok(Value::Int(Int::Consecutive(self.class(class)?))),
            ("size", [arg]) => self.size(arg),
            ("matches", [text, pattern]) => self.matching(text, pattern),
            ("int", [arg]) => self.int(arg),
            ("double", [arg]) => self.double(arg),
            ("string", [arg]) => self.string(arg),
            ("count" | "consecutive" | "size" | "int" | "double" | "string" | "has", _) => {
                Err(self.refusal(span, format!("{name}() takes one argument"), "one argument"))
            }
            ("matches", _) => Err(self.refusal(
                span,
                "matches() takes a text and a pattern",
                "text.matches(\"pattern\")",
            )),
            _ if is_method(name) => Err(self.refusal(
                span,
                format!("{name}() stands alone"),
                format!("text.{name}(\"…\")"),
            )),
            _ => {
                let accepted = format!("{FUNCTIONS}; on a text {METHODS}");
                Err(self.refusal(span, format!("unknown function {name}()"), accepted))
            }
        }
    }

    fn method(&mut self, target: &IdedExpr, call: &CallExpr) -> Compiled<Value> {
        let place = match (call.func_name.as_str(), call.args.as_slice()) {
            ("size", []) => {
                let size = self.size(target)?;
                self.take();
                return Ok(size);
            }
            ("matches", [pattern]) => {
                let text = self.text(target)?;
                self.take();
                return self.pattern(pattern).map(|pattern| matches(text, pattern));
            }
            ("startsWith", [_]) => Place::Start,
            ("endsWith", [_]) => Place::End,
            ("contains", [_]) => Place::Anywhere,
            (name, _) => {
                self.skip_target(target)?;
                return Err(self.wrong_method(name));
            }
        };
        let whole = self.text(target)?;
        self.take();
        let part = self.text(&call.args[0])?;
        Ok(Value::Test(Test::Part(place, Box::new((whole, part)))))
    }

    /// Steps over what a refused method was called on, unless that is itself at fault. A variable
    /// that is nothing alone may well be the target of a call, so its name is let through.
    fn skip_target(&mut self, target: &IdedExpr) -> Compiled<()> {
        match &target.expr {
            Expr::Ident(_) => {
                self.take();
                Ok(())
            }
            _ => self.part(target).map(drop),
        }
    }

    fn wrong_method(&mut self, name: &str) -> ConditionError {
        let span = self.take();
        if name == "size" {
            self.refusal(span, "size() takes no argument here", "x.size()")
        } else if is_method(name) {
            self.refusal(span, format!("{name}() takes one argument"), "one string")
        } else {
            self.refusal(span, format!("unknown method {name}()"), METHODS)
        }
    }

    fn size(&mut self, node: &IdedExpr) -> Compiled<Value> {
        match self.part(node)? {
            Part { value: Value::Text(text), .. } => Ok(Value::Int(Int::TextSize(Box::new(text)))),
            Part { value: Value::ExitCodes, .. } => Ok(Value::Int(Int::ExitCodesSize)),
            part => Err(self.wrong_kind(&part, "a string or last_exit_codes")),
        }
    }

    fn matching(&mut self, text: &IdedExpr, pattern: &IdedExpr) -> Compiled<Value> {
        let text = self.text(text)?;
        self.pattern(pattern).map(|pattern| matches(text, pattern))
    }

    /// Patterns are compiled here and never while a step waits, so they have to be written out.
    fn pattern(&mut self, node: &IdedExpr) -> Compiled<Pattern> {
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            let accepted =
                format!("at most {PATTERNS_MAX}; one pattern can hold alternatives: a|b");
            return Err(self.refusal_here("too many patterns", accepted));
        }
        let Part { value: Value::Text(Text::Const(source)), span } = self.part(node)? else {
            let problem = "the pattern of matches() is not written out";
            return Err(self.refusal_last(problem, "a string literal, such as \"(?i)timed? ?out\""));
        };
        Pattern::parse(&source)
            .map_err(|error| self.refusal(span, error.to_string(), "a pattern that compiles"))
    }

    fn class(&mut self, node: &IdedExpr) -> Compiled<FailureClass> {
        let classes = || FailureClass::ALL.map(|class| format!("{:?}", class.name())).join(", ");
        let Part { value: Value::Text(Text::Const(name)), span } = self.part(node)? else {
            return Err(self.refusal_last("the class is not written out", classes()));
        };
        FailureClass::from_name(&name)
            .ok_or_else(|| self.refusal(span, format!("unknown class {name:?}"), classes()))
    }

    fn int(&mut self, node: &IdedExpr) -> Compiled<Value> {
        let part = self.part(node)?;
        match part.value {
            Value::Int(value) => Ok(Value::Int(value)),
            Value::Double(value) => self.settled_int(Int::OfDouble(Box::new(value)), part.span),
            Value::Text(value) => self.settled_int(Int::OfText(Box::new(value)), part.span),
            _ => Err(self.wrong_kind(&part, "a double or a string")),
        }
    }

    fn double(&mut self, node: &IdedExpr) -> Compiled<Value> {
        let part = self.part(node)?;
        match part.value {
            Value::Double(value) => Ok(Value::Double(value)),
            Value::Int(value) => Ok(Value::Double(Double::OfInt(Box::new(value)))),
            Value::Text(text) => self.settled_double(Double::OfText(Box::new(text)), part.span),
            _ => Err(self.wrong_kind(&part, "an int or a string")),
        }
    }

    fn string(&mut self, node: &IdedExpr) -> Compiled<Value> {
        let part = self.part(node)?;
        Ok(Value::Text(match part.value {
            Value::Text(text) => text,
            Value::Int(value) => Text::OfInt(Box::new(value)),
            Value::Double(value) => Text::OfDouble(Box::new(value)),
            Value::Test(test) => Text::OfTest(Box::new(test)),
            Value::ExitCodes => return Err(self.wrong_kind(&part, "a number or a bool")),
        }))
    }

    /// What rests on literals alone is worked out now, so that an error in it is found now.
    fn settled_int(&self, int: Int, span: Span) -> Compiled<Value> {
        let literal = match &int {
            Int::Negated(value) => value.is_const(),
            Int::Result(_, sides) => sides.0.is_const() && sides.1.is_const(),
            Int::OfDouble(value) => matches!(**value, Double::Const(_)),
            Int::OfText(text) => matches!(**text, Text::Const(_)),
            _ => false,
        };
        if literal {
            let value = int.value(&NOTHING).map_err(|error| self.always_fails(error, span))?;
            return Ok(Value::Int(Int::Const(value)));
        }
        if let Int::Result(Arithmetic::Divide | Arithmetic::Remainder, sides) = &int
            && let Int::Const(0) = sides.1
        {
            return Err(self.always_fails(EvaluationError::DivisionByZero, span));
        }
        Ok(Value::Int(int))
    }

    fn settled_double(&self, double: Double, span: Span) -> Compiled<Value> {
        if let Double::OfText(text) = &double
            && let Text::Const(_) = **text
        {
            let value = double.value(&NOTHING).map_err(|error| self.always_fails(error, span))?;
            return Ok(Value::Double(Double::Const(value)));
        }
        Ok(Value::Double(double))
    }

    fn always_fails(&self, error: EvaluationError, span: Span) -> ConditionError {
        self.refusal(span, format!("always fails: {error}"), "what can have a value")
    }

    /// The next name or literal, without stepping over it. After the last one, that.
    fn here(&self) -> Span {
        self.atoms.get(self.next).copied().unwrap_or_else(|| self.last())
    }

    /// The name or literal stepped over last.
    fn last(&self) -> Span {
        let last = self.atoms[..self.next.min(self.atoms.len())].last();
        last.copied().unwrap_or(Span::START)
    }

    fn take(&mut self) -> Span {
        let span = self.here();
        self.next += 1;
        span
    }

    fn wrong_kind(&self, part: &Part, accepted: &str) -> ConditionError {
        self.refusal(part.span, format!("this is {}", part.value.kind()), accepted)
    }

    fn refusal_here(&self, problem: &str, accepted: impl Into<String>) -> ConditionError {
        self.refusal(self.here(), problem, accepted)
    }

    fn refusal_last(&self, problem: &str, accepted: impl Into<String>) -> ConditionError {
        self.refusal(self.last(), problem, accepted)
    }

    fn refusal(
        &self,
        span: Span,
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) -> ConditionError {
        self.source.refusal(span, problem, accepted)
    }
}

impl Int {
    fn is_const(&self) -> bool {
        matches!(self, Self::Const(_))
    }
}

fn is_method(name: &str) -> bool {
    METHODS.split(", ").any(|method| method == name)
}

fn matches(text: Text, pattern: Pattern) -> Value {
    Value::Test(Test::Matches(Box::new(text), pattern))
}

fn relation(operator: &str) -> Option<Relation> {
    Some(match operator {
        operators::EQUALS => Relation::Equal,
        operators::NOT_EQUALS => Relation::NotEqual,
        operators::LESS => Relation::Less,
        operators::LESS_EQUALS => Relation::LessOrEqual,
        operators::GREATER => Relation::Greater,
        operators::GREATER_EQUALS => Relation::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(operator: &str) -> Option<Arithmetic> {
    Some(match operator {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Remainder,
        _ => return None,
    })
}

/// A scope to work out literals in, which read nothing from it.
pub(super) const NOTHING: ConditionScope<'static> = ConditionScope {
    failure: FailureView {
        class: FailureClass::Failure,
        error_type: "",
        code: "",
        exit_code: -1,
        signal: 0,
        message: "",
        cause: "",
        host: "",
        worker: "",
        target: "",
        action: "",
        duration_s: 0.0,
        executed: "",
        retryable: true,
    },
    step: StepView {
        namespace: "",
        run: "",
        name: "",
        kind: "",
        attempt: 1,
        retries: 0,
        uncounted: 0,
        crashes: 0,
        elapsed_s: 0.0,
    },
    outcomes: &[],
    last_exit_codes: &[],
};
