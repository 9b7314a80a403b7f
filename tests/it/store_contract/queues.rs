//! Queues: what waits in one is found there, in the order of when it is due.

use reprise::{
    domain::{
        event::{AttemptName, Begin, Event, StepTerms},
        failure::{Failure, FailureClass},
    },
    store::{ConfigurationChange, Queued, Store},
};

use super::subject::{self, Subject, id, key, policy, report};

/// A begin of a step of a queue.
fn begun_with(request: u64, queue: &str, payload: &[u8]) -> Event {
    let Event::Begin(begin) = subject::begin(request) else { unreachable!() };
    let step =
        StepTerms { queue: Some(id(queue)), payload: payload.into(), ..StepTerms::default() };
    Event::Begin(Begin { step, ..begin })
}

fn failed(attempt: u32) -> Event {
    let failure = Failure::of(FailureClass::Transient);
    report(AttemptName::Number(attempt), 1, Some(failure))
}

impl<S: Store> Subject<S> {
    async fn begins_with(&self, step: &str, queue: &str) {
        self.apply(key("n", "r", step), &begun_with(1, queue, b"what to load")).await;
    }

    async fn queued(&self, queue: &str) -> Vec<String> {
        let queued = self.store.queued("n", queue, 100).await.unwrap();
        let mut before = None;
        for Queued { joined, due } in &queued {
            let (run, step) = joined.split_once(' ').unwrap();
            let record = self.record(key("n", run, step)).await.unwrap();
            let header = reprise::domain::record::State::Waiting { due: *due };
            assert_eq!(record.state, header, "{joined}");
            assert!(before <= Some(*due), "in their order");
            before = Some(*due);
        }
        queued.into_iter().map(|step| step.joined).collect()
    }
}

pub async fn a_step_is_in_its_queue_while_it_waits<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let change = ConfigurationChange::Policy(id("p"), policy("backoff: {fixed: {delay: 1s}}"));
    subject.reconfigure("n", change).await.unwrap();
    subject.begins_with("a", "etl").await;
    assert!(subject.queued("etl").await.is_empty(), "it runs");

    subject.apply(key("n", "r", "a"), &failed(1)).await;
    subject.clock.advance(subject::SECOND);
    subject.begins_with("b", "etl").await;
    subject.apply(key("n", "r", "b"), &failed(1)).await;
    subject.begins_with("c", "et").await;
    subject.apply(key("n", "r", "c"), &failed(1)).await;
    assert_eq!(subject.queued("etl").await, ["r a", "r b"]);
    assert_eq!(subject.queued("et").await, ["r c"]);
    assert!(subject.queued("e").await.is_empty());
    assert_eq!(subject.store.queued("n", "etl", 1).await.unwrap().len(), 1);

    let record = subject.record(key("n", "r", "a")).await.unwrap();
    assert_eq!(&*record.payload, b"what to load");
    subject.clock.advance(10 * subject::SECOND);
    // It moves with another queue, and keeps what it is handed.
    subject.apply(key("n", "r", "a"), &begun_with(2, "other", b"")).await;
    subject.apply(key("n", "r", "a"), &failed(2)).await;
    assert_eq!(subject.queued("etl").await, ["r b"]);
    assert_eq!(subject.queued("other").await, ["r a"]);
    let record = subject.record(key("n", "r", "a")).await.unwrap();
    assert_eq!(&*record.payload, b"what to load");

    // And leaves when it is over.
    subject.apply(key("n", "r", "b"), &begun_with(2, "etl", b"")).await;
    subject.apply(key("n", "r", "b"), &report(AttemptName::Number(2), 1, None)).await;
    assert!(subject.queued("etl").await.is_empty());
}
