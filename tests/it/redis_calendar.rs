//! The calendar in the scripts is the calendar of the rule, answer by answer.

use std::{num::NonZeroU32, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};
use redis::{Script, aio::MultiplexedConnection, cmd};
use reprise::domain::{
    limit::{
        Rate, Starts,
        calendar::{Calendar, Grid},
    },
    time::Timestamp,
};

use crate::redis_servers::{Kind, Options, Standalone};

const START: u64 = 1_750_000_000_000_000;
const KEY: &str = "calendar";

/// What every script begins with; the calendar rests on its `text`.
const COMMON: &str = include_str!("../../src/store/redis/lua/common.lua");
const CALENDAR: &str = include_str!("../../src/store/redis/lua/calendar.lua");
const ASK: &str = include_str!("redis_calendar.lua");

fn script() -> Script {
    Script::new(&format!("#!lua\n{COMMON}\n{CALENDAR}\n{ASK}"))
}

/// Rates that are changed among themselves: near each other, so that their
/// buckets meet, and one far away.
fn rates() -> impl Strategy<Value = Vec<Rate>> {
    let near = (1..=40_u32, 10_000..2_000_000_u64, prop_oneof![Just(1), 2..8_u32, 2..600_u32]);
    let far = (1..=1_000_u32, 1_000..86_400_000_000_u64, 1..600_u32);
    let rate = prop_oneof![4 => near, 1 => far].prop_map(|(limit, micros, burst)| {
        let [limit, burst] = [limit, burst].map(|number| NonZeroU32::new(number).unwrap());
        Rate { limit, period: Duration::from_micros(micros), burst, on: Starts::All }
    });
    prop::collection::vec(rate, 1..7)
}

/// A question. Distances are in buckets of 1/256, shares in 256ths.
#[derive(Clone, Debug)]
enum Question {
    Room { ahead: u64 },
    Start { ahead: u64, share: u64, times: usize },
    Take { ahead: u64 },
    GiveBack { which: usize },
    Load { ahead: u64 },
    LoadOfStart { which: usize },
}

/// A call: time moves on, the rate is one of those there are.
#[derive(Clone, Debug)]
struct Call {
    wait: u64,
    rate: usize,
    questions: Vec<Question>,
}

/// Mostly near, sometimes pages or groups away.
fn ahead() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..2_048_u64, 2 => 0..400_000_u64, 1 => 0..52_000_000_u64]
}

fn call() -> impl Strategy<Value = Call> {
    let question = prop_oneof![
        2 => ahead().prop_map(|ahead| Question::Room { ahead }),
        5 => (ahead(), prop_oneof![Just(0), Just(256), 0..=256_u64], 1..24_usize)
            .prop_map(|(ahead, share, times)| Question::Start { ahead, share, times }),
        1 => ahead().prop_map(|ahead| Question::Take { ahead }),
        3 => any::<usize>().prop_map(|which| Question::GiveBack { which }),
        1 => ahead().prop_map(|ahead| Question::Load { ahead }),
        2 => any::<usize>().prop_map(|which| Question::LoadOfStart { which }),
    ];
    let rate = prop_oneof![3 => Just(0), 1 => 0..7_usize];
    (prop_oneof![2 => Just(0), 4 => ahead()], rate, prop::collection::vec(question, 1..8))
        .prop_map(|(wait, rate, questions)| Call { wait, rate, questions })
}

/// A calendar of the rule, and what it granted.
struct Model {
    calendar: Calendar,
    grid: Grid,
    now: u64,
    starts: Vec<(u64, Grid)>,
}

/// Numbers of a question, and the answer that is expected.
type Asked = (Vec<String>, String);

fn asked(name: &str, numbers: [u64; 4], answer: String) -> Asked {
    let numbers = numbers.iter().map(u64::to_string);
    (std::iter::once(name.to_owned()).chain(numbers).collect(), answer)
}

impl Model {
    fn at(&self, ahead: u64) -> u64 {
        // So that no history leaves what doubles can tell apart.
        self.now + (self.grid.width().saturating_mul(ahead) / 256).min(1 << 47)
    }

    fn room(&self, from: u64) -> Option<(u64, u64)> {
        let room = self.calendar.room(Timestamp::from_micros(from))?;
        Some((room.from.as_micros(), room.until.as_micros()))
    }

    fn start(&mut self, from: u64, share: u64) -> Asked {
        let at = self.room(from).map(|(first, until)| first + (until - 1 - first) * share / 256);
        if let Some(at) = at {
            self.calendar.take(Timestamp::from_micros(at));
            self.starts.push((at, self.grid));
        }
        asked("start", [from, share, 0, 0], at.map_or(String::new(), |at| at.to_string()))
    }

    /// What a question is to the script, and what it is to answer.
    fn ask(&mut self, question: &Question) -> Vec<Asked> {
        match *question {
            Question::Room { ahead } => {
                let from = self.at(ahead);
                let room = self.room(from);
                let room = room.map_or(String::new(), |(from, until)| format!("{from} {until}"));
                vec![asked("room", [from, 0, 0, 0], room)]
            }
            Question::Start { ahead, share, times } => {
                let from = self.at(ahead);
                (0..times).map(|_| self.start(from, share)).collect()
            }
            Question::Take { ahead } => {
                let at = self.at(ahead);
                self.calendar.take(Timestamp::from_micros(at));
                vec![asked("take", [at, 0, 0, 0], String::new())]
            }
            Question::GiveBack { which } if !self.starts.is_empty() => {
                let (at, grid) = self.starts.swap_remove(which % self.starts.len());
                self.calendar.give_back(grid, Timestamp::from_micros(at));
                let gap = u64::from(grid.has_gap());
                let numbers = [at, grid.width(), u64::from(grid.capacity()), gap];
                vec![asked("give_back", numbers, String::new())]
            }
            // One that may be past.
            Question::LoadOfStart { which } if !self.starts.is_empty() => {
                self.loads(self.starts[which % self.starts.len()].0)
            }
            Question::GiveBack { .. } | Question::LoadOfStart { .. } => vec![],
            Question::Load { ahead } => self.loads(self.at(ahead)),
        }
    }

    fn loads(&self, at: u64) -> Vec<Asked> {
        let (used, limit) = self.calendar.load(Timestamp::from_micros(at));
        let share = self.calendar.share(Timestamp::from_micros(at));
        vec![
            asked("load", [at, 0, 0, 0], format!("{used} {limit}")),
            asked("share", [at, 0, 0, 0], share.to_string()),
        ]
    }
}

/// A server that keeps a calendar.
struct Stage {
    connection: MultiplexedConnection,
    script: Script,
}

impl Stage {
    async fn ask(&mut self, now: u64, grid: Grid, questions: &[Asked]) -> Vec<String> {
        let gap = u64::from(grid.has_gap());
        let mut call = self.script.key(KEY);
        for number in [now, grid.width(), u64::from(grid.capacity()), gap] {
            call.arg(number);
        }
        for (question, _) in questions {
            call.arg(question);
        }
        call.invoke_async(&mut self.connection).await.unwrap()
    }

    async fn fields(&mut self) -> usize {
        cmd("HLEN").arg(KEY).query_async(&mut self.connection).await.unwrap()
    }

    async fn is_equal(&mut self, rates: &[Rate], calls: &[Call]) -> Result<(), TestCaseError> {
        cmd("DEL").arg(KEY).exec_async(&mut self.connection).await.unwrap();
        let grid = Grid::of(&rates[0]);
        let mut model = Model { calendar: Calendar::default(), grid, now: START, starts: vec![] };
        for call in calls {
            model.grid = Grid::of(&rates[call.rate % rates.len()]);
            model.now = model.at(call.wait);
            model.calendar.open(model.grid, Timestamp::from_micros(model.now));
            let asked: Vec<Asked> = call.questions.iter().flat_map(|one| model.ask(one)).collect();
            let answers = self.ask(model.now, model.grid, &asked).await;
            for ((question, expected), answer) in asked.iter().zip(&answers) {
                prop_assert_eq!(answer, expected, "{:?} at {}", question, model.now);
            }
        }
        // What is past goes, a few pages a call.
        let later = model.now + (1 << 48);
        for step in 1..=200 {
            let now = later + step * (model.grid.width() * 300).min(1 << 43);
            let question = asked("take", [now, 0, 0, 0], String::new());
            self.ask(now, model.grid, &[question]).await;
            if step > 1 && self.fields().await <= 7 {
                return Ok(());
            }
        }
        Err(TestCaseError::fail(format!("{} fields are kept", self.fields().await)))
    }
}

/// Runs a test that is not asynchronous itself on a server.
fn with_stage(test: impl FnOnce(&tokio::runtime::Runtime, Stage)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Standalone::start(Kind::Redis70, Options::default()));
    let connection = runtime.block_on(server.endpoint().connect()).unwrap();
    test(&runtime, Stage { connection, script: script() });
    drop(server);
}

#[test]
fn scripts_keep_the_calendar_of_the_rule() {
    with_stage(|runtime, stage| {
        let config = Config {
            cases: 200,
            failure_persistence: None,
            // A history is some hundred calls of a server.
            max_shrink_iters: 400,
            ..Config::default()
        };
        let histories = (rates(), prop::collection::vec(call(), 1..24));
        let stage = std::cell::RefCell::new(stage);
        let ran = TestRunner::new(config).run(&histories, |(rates, calls)| {
            runtime.block_on(stage.borrow_mut().is_equal(&rates, &calls))
        });
        if let Err(TestError::Fail(why, history)) = ran {
            panic!("{why}\n{history:#?}");
        }
    });
}

/// Of a start a millisecond.
fn grid(burst: u32) -> Grid {
    let burst = NonZeroU32::new(burst).unwrap();
    let (limit, period) = (NonZeroU32::MIN, Duration::from_millis(1));
    Grid::of(&Rate { limit, period, burst, on: Starts::All })
}

/// What a server counted of a command.
async fn count(stage: &mut Stage, command: &str) -> u64 {
    let info: String =
        cmd("INFO").arg("commandstats").query_async(&mut stage.connection).await.unwrap();
    let name = format!("cmdstat_{command}:calls=");
    let line = info.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn room_behind_100_000_full_buckets_takes_a_few_reads() {
    with_stage(|runtime, mut stage| {
        runtime.block_on(async {
            for burst in [1, 2] {
                cmd("DEL").arg(KEY).exec_async(&mut stage.connection).await.unwrap();
                let grid = grid(burst);
                let start = asked("start", [START, 0, 0, 0], String::new());
                for _ in 0..100 {
                    stage.ask(START, grid, &vec![start.clone(); 1_000]).await;
                }
                let before = count(&mut stage, "hget").await;
                let room = asked("room", [START, 0, 0, 0], String::new());
                let answers = stage.ask(START, grid, &[room]).await;
                let first: u64 = answers[0].split(' ').next().unwrap().parse().unwrap();
                assert_eq!(first / grid.width() - START / grid.width(), 100_000);
                let reads = count(&mut stage, "hget").await - before;
                assert!(reads <= 6, "{reads} reads");
            }
        });
    });
}

#[test]
fn what_is_no_calendar_is_left_alone() {
    with_stage(|runtime, mut stage| {
        runtime.block_on(async {
            let grid = grid(1);
            cmd("SET").arg(KEY).arg("foreign").exec_async(&mut stage.connection).await.unwrap();
            assert_eq!(stage.ask(START, grid, &[]).await, ["damaged"]);
            cmd("DEL").arg(KEY).exec_async(&mut stage.connection).await.unwrap();
            cmd("HSET")
                .arg(KEY)
                .arg("g")
                .arg("foreign")
                .exec_async(&mut stage.connection)
                .await
                .unwrap();
            assert_eq!(stage.ask(START, grid, &[]).await, ["damaged"]);
        });
    });
}
