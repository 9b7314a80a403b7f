//! Queues: what waits in one is found there, in the order of when it is due.

use reprise::{
    domain::{
        event::{AttemptName, Begin, Event, StepTerms},
        failure::{Failure, FailureClass},
        labels::Labels,
        record::State,
    },
    store::{Queued, Store},
};

use super::subject::{self, Subject, id, key, report};

/// A begin of a step of a queue.
fn begun_with(request: u64, queue: &str, payload: &[u8]) -> Event {
    let Event::Begin(begin) = subject::begin(request) else { unreachable!() };
    let step =
        StepTerms { queue: Some(id(queue)), payload: payload.into(), ..StepTerms::default() };
    Event::Begin(Begin { step, ..begin })
}

impl<S: Store> Subject<S> {
    async fn begins_with(&self, step: &str, queue: &str) {
        self.apply(key("n", "r", step), &begun_with(1, queue, b"what to load")).await;
    }

    /// Ends the attempt that runs.
    async fn ends(&self, step: &str, failure: Option<Failure>) {
        let key = key("n", "r", step);
        let fence = self.record(key).await.unwrap().fence;
        self.apply(key, &report(AttemptName::Fence(fence), 1, failure)).await;
    }

    async fn fails(&self, step: &str) {
        self.ends(step, Some(Failure::of(FailureClass::Transient))).await;
    }

    async fn queued(&self, queue: &str) -> Vec<String> {
        let queued = self.store.queued("n", queue, 100).await.unwrap();
        let mut before = None;
        for Queued { joined, due, labels } in &queued {
            let (run, step) = joined.split_once(' ').unwrap();
            let record = self.record(key("n", run, step)).await.unwrap();
            assert_eq!(record.state, State::Waiting { due: *due }, "{joined}");
            assert_eq!(record.labels, *labels, "{joined}");
            assert!(before <= Some(*due), "in their order");
            before = Some(*due);
        }
        queued.into_iter().map(|step| step.joined).collect()
    }
}

pub async fn a_step_is_in_its_queue_while_it_waits<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    subject.begins_with("a", "etl").await;
    assert!(subject.queued("etl").await.is_empty(), "it runs");

    subject.fails("a").await;
    subject.clock.advance(subject::SECOND);
    subject.begins_with("b", "etl").await;
    subject.fails("b").await;
    subject.begins_with("c", "et").await;
    subject.fails("c").await;
    assert_eq!(subject.queued("etl").await, ["r a", "r b"]);
    assert_eq!(subject.queued("et").await, ["r c"]);
    assert!(subject.queued("e").await.is_empty());
    assert_eq!(subject.store.queued("n", "etl", 1).await.unwrap().len(), 1);

    let record = subject.record(key("n", "r", "a")).await.unwrap();
    assert_eq!(&*record.payload, b"what to load");
    subject.clock.advance(10 * subject::SECOND);
    // It moves with another queue, and keeps what it is handed.
    subject.apply(key("n", "r", "a"), &begun_with(2, "other", b"")).await;
    subject.fails("a").await;
    assert_eq!(subject.queued("etl").await, ["r b"]);
    assert_eq!(subject.queued("other").await, ["r a"]);
    let record = subject.record(key("n", "r", "a")).await.unwrap();
    assert_eq!(&*record.payload, b"what to load");

    // And leaves when it is over.
    subject.apply(key("n", "r", "b"), &begun_with(2, "etl", b"")).await;
    subject.ends("b", None).await;
    assert!(subject.queued("etl").await.is_empty());
}

pub async fn a_step_is_in_its_queue_with_its_labels<S: Store>(subject: Subject<S>) {
    subject.create("n").await;
    let begin = |request, labels: &str| {
        let Event::Begin(begin) = begun_with(request, "etl", b"") else { unreachable!() };
        let step = StepTerms { labels: Labels::parse(labels).unwrap(), ..begin.step };
        Event::Begin(Begin { step, ..begin })
    };
    let most = (0..8).map(|at| format!("{at}{}={}", "k".repeat(62), "v".repeat(63)));
    let most = most.collect::<Vec<_>>().join(",");
    for (step, labels) in [("a", "gpu=a100,zone=eu"), ("b", ""), ("c", &most)] {
        subject.apply(key("n", "r", step), &begin(1, labels)).await;
        subject.fails(step).await;
    }
    let mut queued = subject.queued("etl").await;
    queued.sort();
    assert_eq!(queued, ["r a", "r b", "r c"]);

    subject.clock.advance(10 * subject::SECOND);
    // None keep what it has, and others take their place.
    for (request, labels, expected) in [(2, "", "gpu=a100,zone=eu"), (3, "gpu=l4", "gpu=l4")] {
        subject.apply(key("n", "r", "a"), &begin(request, labels)).await;
        assert!(!subject.queued("etl").await.contains(&"r a".to_owned()));
        subject.fails("a").await;
        assert!(subject.queued("etl").await.contains(&"r a".to_owned()));
        let record = subject.record(key("n", "r", "a")).await.unwrap();
        assert_eq!(record.labels.as_str(), expected);
        subject.clock.advance(10 * subject::SECOND);
    }
}
