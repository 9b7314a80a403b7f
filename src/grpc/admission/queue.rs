//! The queue: namespaces in turn, and classes in order within a namespace.
//!
//! Turns before classes: with classes first, a namespace that floods with reports
//! would starve every other one's begins.
//!
//! Lines are looked up by walking past them. There are no more than calls waiting,
//! which is a few hundred; with the few namespaces of real life a hash is slower.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Class;
use super::gate::Waiter;

/// One turn of a namespace in so many goes to [`Class::Other`] first, so that an
/// operator can still look and pause while reports and begins pile up.
const OTHER_FIRST: u32 = 8;

/// Which of two calls of one line and class is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// First come, first served: fair, and right as long as all are served.
    OldestFirst,
    /// When not all can be served, those who came last have the most time left.
    NewestFirst,
}

/// The order of each class.
pub(super) type Orders = [Order; 3];

#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// The next to be served first; none is empty.
    lines: VecDeque<Line>,
    /// Calls by class.
    waiting: [usize; 3],
}

/// The calls of one namespace.
#[derive(Debug)]
struct Line {
    namespace: Box<str>,
    by_class: [VecDeque<Arc<Waiter>>; 3],
    len: usize,
    turns_had: u32,
}

impl Line {
    fn new(namespace: &str) -> Self {
        Self { namespace: namespace.into(), by_class: Default::default(), len: 0, turns_had: 0 }
    }

    /// The class whose turn it is.
    fn next_class(&self) -> Option<Class> {
        let others_turn = self.turns_had % OTHER_FIRST == OTHER_FIRST - 1;
        if others_turn && self.waits(Class::Other) {
            return Some(Class::Other);
        }
        Class::ALL.into_iter().find(|class| self.waits(*class))
    }

    fn last_class(&self) -> Option<Class> {
        let mut last_first = Class::ALL.into_iter().rev();
        last_first.find(|class| self.waits(*class))
    }

    fn waits(&self, class: Class) -> bool {
        !self.by_class[class as usize].is_empty()
    }

    fn take_next(&mut self, class: Class, order: Order) -> Option<Arc<Waiter>> {
        let calls = &mut self.by_class[class as usize];
        match order {
            Order::OldestFirst => calls.pop_front(),
            Order::NewestFirst => calls.pop_back(),
        }
    }

    fn take_last(&mut self, class: Class, order: Order) -> Option<Arc<Waiter>> {
        let calls = &mut self.by_class[class as usize];
        match order {
            Order::OldestFirst => calls.pop_back(),
            Order::NewestFirst => calls.pop_front(),
        }
    }
}

impl FairQueue {
    pub fn len(&self) -> usize {
        self.waiting.iter().sum()
    }

    /// Whether a call of `class` would find others ahead of it, namespaces aside.
    pub fn has_ahead_of(&self, class: Class) -> bool {
        let ahead = &self.waiting[..=class as usize];
        ahead.iter().any(|waiting| *waiting > 0)
    }

    pub fn push(&mut self, waiter: Arc<Waiter>) {
        let namespace = waiter.namespace();
        let at = self.line_of(namespace).unwrap_or_else(|| {
            self.lines.push_back(Line::new(namespace));
            self.lines.len() - 1
        });
        let class = waiter.class() as usize;
        self.waiting[class] += 1;
        self.lines[at].len += 1;
        self.lines[at].by_class[class].push_back(waiter);
    }

    /// The call whose turn it is, taken out; its namespace goes to the back.
    pub fn pop(&mut self, reports_only: bool, orders: Orders) -> Option<Arc<Waiter>> {
        let (at, class) = if reports_only {
            (self.first_with_report()?, Class::Report)
        } else {
            (0, self.lines.front()?.next_class()?)
        };
        let mut line = self.lines.remove(at)?;
        line.turns_had = line.turns_had.wrapping_add(1);
        let taken = line.take_next(class, orders[class as usize]);
        self.lines.push_back(line);
        self.taken_out(self.lines.len() - 1, taken)
    }

    fn first_with_report(&self) -> Option<usize> {
        if !self.has_ahead_of(Class::Report) {
            return None;
        }
        self.lines.iter().position(|line| line.waits(Class::Report))
    }

    /// Takes out the call that has to make room for one of `class` in `namespace`,
    /// or none if that one is itself the one to go. It is of the longest line, of
    /// the last class there, and the one who would have been served last.
    pub fn displace(
        &mut self,
        namespace: &str,
        class: Class,
        orders: Orders,
    ) -> Option<Arc<Waiter>> {
        let by_len = |at: &usize| self.lines[*at].len;
        let longest = (0..self.lines.len()).max_by_key(by_len)?;
        let own = self.line_of(namespace);
        let own = own.filter(|own| by_len(&longest) <= by_len(own));
        let at = own.unwrap_or(longest);
        let last = self.lines[at].last_class()?;
        if own.is_some() && !gives_way(last, class, orders) {
            return None;
        }
        let taken = self.lines[at].take_last(last, orders[last as usize]);
        self.taken_out(at, taken)
    }

    /// Takes a certain call out, if it is still there.
    pub fn remove(&mut self, waiter: &Arc<Waiter>) {
        let Some(at) = self.line_of(waiter.namespace()) else {
            return;
        };
        let calls = &mut self.lines[at].by_class[waiter.class() as usize];
        if let Some(place) = calls.iter().position(|call| Arc::ptr_eq(call, waiter)) {
            let taken = calls.remove(place);
            self.taken_out(at, taken);
        }
    }

    fn line_of(&self, namespace: &str) -> Option<usize> {
        let mut lines = self.lines.iter();
        lines.position(|line| *line.namespace == *namespace)
    }

    /// Counts a call off its line, and the line away with its last call.
    fn taken_out(&mut self, at: usize, taken: Option<Arc<Waiter>>) -> Option<Arc<Waiter>> {
        let taken = taken?;
        self.waiting[taken.class() as usize] -= 1;
        self.lines[at].len -= 1;
        if self.lines[at].len == 0 {
            self.lines.remove(at);
        }
        Some(taken)
    }
}

/// Whether, within one line, a waiting call of the class `last` goes for a new one.
fn gives_way(last: Class, new: Class, orders: Orders) -> bool {
    new < last || (new == last && orders[new as usize] == Order::NewestFirst)
}
