//! One run: start the servers, drive the loads in turns, collect the figures.

use std::{io, time::Duration};

use super::{
    Options,
    cases::{CASES, Case, Drive, START},
    client::{Address, Transport},
    figures::{Figures, Ratios, median},
    load::{Fleet, Shape, appends_per_second, offsets},
    process::{Dir, Place, Program, Server, Store},
    redis_server::{Aof, Redis, set_cost},
    report::{Disk, Measurement, Report, Start},
    say, targets,
    workload::{Chance, Limits},
};

/// Of the rate that a closed loop reaches, the share that a server is taken to
/// sustain: at the full rate any queue grows without end.
const SUSTAINABLE: f64 = 0.8;
/// The multiples of that rate at which overload is measured.
const OVERLOADS: [u32; 2] = [1, 3];
/// Callers that find out which rate can be sustained.
const SATURATING: Shape = Shape { callers: 64, connections: 4 };
/// How long a server is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_millis(500);

/// How long is measured.
struct Preset {
    rounds: u32,
    length: Duration,
    warm_up: Duration,
}

const FULL: Preset =
    Preset { rounds: 5, length: Duration::from_secs(2), warm_up: Duration::from_millis(300) };
const QUICK: Preset =
    Preset { rounds: 2, length: Duration::from_millis(300), warm_up: Duration::from_millis(100) };

/// What is common to all loads of one run.
pub(super) struct Run<'a> {
    options: &'a Options,
    rounds: u32,
    length: Duration,
    warm_up: Duration,
    place: Place,
}

/// A server with its callers.
struct Side {
    name: &'static str,
    server: Server,
    fleet: Fleet,
    rounds: Vec<Figures>,
}

impl<'a> Run<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        let preset = if options.quick { &QUICK } else { &FULL };
        Self {
            options,
            rounds: options.rounds.unwrap_or(preset.rounds),
            length: options.seconds.unwrap_or(preset.length),
            warm_up: preset.warm_up,
            place: Place {
                parent: options.data_dir.clone().unwrap_or_else(std::env::temp_dir),
                redis: options.redis(),
            },
        }
    }

    /// Measures what is wanted, one after another. What cannot be measured is
    /// told and does not keep the rest from it.
    pub(super) async fn report(&self) -> Report {
        let mut report = Report {
            seed: self.options.seed,
            rounds: self.rounds,
            seconds_per_round: self.length.as_secs_f64(),
            arrivals: self.options.arrivals,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            start: None,
            disk: None,
            redis_set_us: None,
            measurements: Vec::new(),
            targets: Vec::new(),
            unmeasured: Vec::new(),
        };
        if self.is_wanted(START) && self.options.server.is_none() {
            let start = self.start().await;
            report.start = report.keep(START, start);
        }
        for case in CASES.iter().filter(|case| self.is_wanted(case.name)) {
            if !self.is_possible(case) {
                say(format_args!("{}: left out, it needs a server of its own", case.name));
                continue;
            }
            if report.disk.is_none() && case.program == Program::Reprise(Store::Durable) {
                let disk = self.disk();
                report.disk = report.keep(case.name, disk);
            }
            if report.redis_set_us.is_none()
                && case.is_on_redis()
                && let Some(Redis::Program(program)) = &self.place.redis
            {
                let cost = set_cost(program, &self.place.parent, self.length).await;
                report.redis_set_us = report.keep("SET on Redis", cost);
            }
            let measured = self.case(case).await;
            let measured = report.keep(case.name, measured);
            report.measurements.extend(measured.into_iter().flatten());
        }
        report.targets = targets::evaluate(&report);
        report
    }

    fn is_wanted(&self, name: &str) -> bool {
        let only = &self.options.only;
        if only.is_empty() && name.starts_with("redis") && self.place.redis.is_none() {
            return false;
        }
        only.contains(&name) || only.is_empty() && name != "echo"
    }

    /// A server that runs already has the store and the transport that it has.
    fn is_possible(&self, case: &Case) -> bool {
        let asks_for_nothing = case.program == Program::Reprise(Store::Memory)
            && case.transport == Transport::Tcp
            && case.limits == Limits::None;
        let is_configured =
            matches!(case.program, Program::Reprise(Store::Redis(aof)) if aof != Aof::Off);
        if is_configured && matches!(self.place.redis, Some(Redis::At(_))) {
            return false;
        }
        self.options.server.is_none() || case.program == Program::Echo || asks_for_nothing
    }

    fn transport(&self, case: &Case) -> Transport {
        self.options.server.as_ref().map_or(case.transport, Address::transport)
    }

    /// How fast a server starts and how little it holds when idle.
    async fn start(&self) -> io::Result<Start> {
        let mut first_answers: [Vec<f64>; 2] = Default::default();
        let mut resident = [0; 2];
        for round in 0..self.rounds {
            for (side, program) in
                [Program::Echo, Program::Reprise(Store::Memory)].into_iter().enumerate()
            {
                let server = Server::start(program, Transport::Tcp, &self.place).await?;
                first_answers[side].extend(server.started_in.map(|took| took.as_secs_f64() * 1e3));
                if round == 0 {
                    tokio::time::sleep(IDLE).await;
                    resident[side] = server.resident_bytes()?.unwrap_or_default();
                }
                server.stop().await?;
            }
        }
        let [baseline_first_answer_ms, first_answer_ms] =
            first_answers.map(|answers| median(answers.into_iter()).unwrap_or_default());
        let [baseline_resident_bytes, resident_bytes] = resident;
        let binary_bytes = std::fs::metadata(std::env::current_exe()?)?.len();
        say(format_args!(
            "{START}: first answer after {first_answer_ms:.1} ms, echo {baseline_first_answer_ms:.1} ms"
        ));
        Ok(Start {
            first_answer_ms,
            baseline_first_answer_ms,
            resident_bytes,
            baseline_resident_bytes,
            binary_bytes,
        })
    }

    fn disk(&self) -> io::Result<Disk> {
        let dir = Dir::create(&self.place.parent)?;
        let appends_per_second = appends_per_second(&dir.path, self.length)?;
        say(format_args!("disk: {appends_per_second:.0} synced appends a second"));
        Ok(Disk { appends_per_second })
    }

    async fn case(&self, case: &Case) -> io::Result<Vec<Measurement>> {
        let rates = match case.drive {
            Drive::Closed => vec![None],
            Drive::Open => vec![Some(f64::from(self.options.rate))],
            Drive::Overload => {
                let sustainable = self.sustainable(case).await?;
                OVERLOADS.iter().map(|&times| Some(sustainable * f64::from(times))).collect()
            }
        };
        let mut measurements = Vec::new();
        for rate in rates {
            measurements.push(self.compare(case, rate).await?);
        }
        Ok(measurements)
    }

    /// Calls a second that the server of a case can keep up with.
    async fn sustainable(&self, case: &Case) -> io::Result<f64> {
        let full = Case { shape: SATURATING, drive: Drive::Closed, ..*case };
        let reached = self.compare(&full, None).await?.subject.decisions_per_second;
        Ok((reached * SUSTAINABLE).max(1.0))
    }

    /// Drives one load against both servers in turns. `rate` is for an open
    /// loop, calls a second; without one the loop is closed.
    async fn compare(&self, case: &Case, rate: Option<f64>) -> io::Result<Measurement> {
        let shape = self.shape(case);
        let subject = self.subject(case).await?;
        subject.limit(case.limits).await?;
        let transport = self.transport(case);
        let replies = &subject.replies;
        let baseline =
            Server::start_baseline(case.baseline, replies, transport, &self.place).await?;
        let mut sides = [
            Side::connect(baseline_name(case), baseline, case, shape, self.options.seed).await?,
            Side::connect(subject_name(case), subject, case, shape, self.options.seed).await?,
        ];
        for round in 0..self.rounds {
            for side in &mut sides {
                self.round(side, round, rate).await?;
            }
            say(format_args!(
                "{}: round {} of {}: {} | {}",
                case.name,
                round + 1,
                self.rounds,
                sides[0],
                sides[1]
            ));
        }
        let [baseline, subject] = sides;
        let tolerant = case.drive == Drive::Overload && rate.is_some();
        let baseline = baseline.finish(tolerant).await?;
        let subject = subject.finish(tolerant).await?;
        Ok(Measurement {
            name: case.name.to_owned(),
            scenario: case.scenario,
            is_baseline: case.program == Program::Echo,
            baseline_name: baseline_name(case),
            store: self.store(case),
            transport: self.transport(case),
            shape,
            calls_due_per_second: rate,
            ratios: Ratios::of(&subject, &baseline),
            baseline,
            subject,
        })
    }

    fn shape(&self, case: &Case) -> Shape {
        Shape {
            callers: self.options.callers.unwrap_or(case.shape.callers),
            connections: self.options.connections.unwrap_or(case.shape.connections),
        }
    }

    async fn subject(&self, case: &Case) -> io::Result<Server> {
        match (&self.options.server, case.program) {
            (Some(address), Program::Reprise(_)) => {
                Server::running(address.clone(), self.options.server_pid).await
            }
            _ => Server::start(case.program, self.transport(case), &self.place).await,
        }
    }

    fn store(&self, case: &Case) -> Option<Store> {
        match case.program {
            Program::Reprise(store) if self.options.server.is_none() => Some(store),
            _ => None,
        }
    }

    async fn round(&self, side: &mut Side, round: u32, rate: Option<f64>) -> io::Result<()> {
        let Side { server, fleet, rounds, .. } = side;
        let measured = match rate {
            None => fleet.closed_loop(server, self.warm_up, self.length).await?,
            Some(rate) => {
                let count = (rate * self.length.as_secs_f64()).round().max(1.0) as u64;
                let chance = Chance::new(self.options.seed.wrapping_add(u64::from(round)));
                fleet.open_loop(server, offsets(self.options.arrivals, rate, count, chance)).await?
            }
        };
        rounds.push(Figures::of(measured));
        Ok(())
    }
}

impl Side {
    async fn connect(
        name: &'static str,
        server: Server,
        case: &Case,
        shape: Shape,
        seed: u64,
    ) -> io::Result<Self> {
        let fleet = Fleet::connect(&server, (case.scenario, case.limits), shape, seed).await?;
        Ok(Self { name, server, fleet, rounds: Vec::new() })
    }

    /// The figures of all rounds. Only a `tolerant` load may be turned away.
    async fn finish(self, tolerant: bool) -> io::Result<Figures> {
        let mut figures =
            Figures::median(&self.rounds).ok_or_else(|| io::Error::other("no rounds"))?;
        figures.resident_bytes = self.server.resident_bytes()?;
        if !tolerant && 0 < figures.rejected {
            figures.failed.insert("RESOURCE_EXHAUSTED".to_owned(), figures.rejected);
        }
        drop(self.fleet);
        self.server.stop().await?;
        Ok(figures)
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(last) = self.rounds.last() else { return f.write_str(self.name) };
        write!(f, "{} {:.0}/s", self.name, last.decisions_per_second)?;
        if let Some(cpu) = last.cpu_us {
            write!(f, " {cpu:.2} µs")?;
        }
        match last.failures() {
            0 => Ok(()),
            failures => write!(f, ", {failures} FAILED"),
        }
    }
}

fn baseline_name(case: &Case) -> &'static str {
    if case.baseline == Program::Echo { "echo" } else { "naive" }
}

fn subject_name(case: &Case) -> &'static str {
    if case.program == Program::Echo { "echo" } else { "reprise" }
}
