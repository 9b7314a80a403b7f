//! `reprise simulate storm`: presets, what may be changed of them, and where the
//! results go.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    cli::{
        Global,
        error::CliError,
        exit::Exit,
        output::{self, Format},
    },
    simulation::{
        Kind, Report, Scenario, plot, preset,
        report::{COLUMNS, Comparison},
    },
};

/// Every preset, one after another.
const ALL: &str = "all";

/// Which storm, and how often.
#[derive(Debug, clap::Args)]
pub struct StormArgs {
    /// The storm: outage, outage-slow-start, outage-fragile, rejecting, blips,
    /// half-failing, budget, first-429, bad-node; or all of them
    #[arg(value_name = "PRESET", value_parser = presets)]
    preset: Presets,
    /// Runs of each strategy; figures are their medians
    #[arg(long, default_value = "10", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,
    /// The first seed; equal seeds give equal storms
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    seed: u64,
    /// Steps that begin at once [default: the preset's]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    steps: Option<u32>,
    /// Steps a second that begin after that [default: the preset's]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(..=10_000))]
    fresh: Option<u32>,
    /// Calls a second that the target serves [default: the preset's]
    #[arg(long, value_name = "COUNT", value_parser = capacity)]
    capacity: Option<NonZeroU32>,
    /// Retries of each step, at most [default: the preset's]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(..=1000))]
    max_retries: Option<u32>,
    /// Write plots of load and backlog into this directory, as SVG
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write tables, and the plots if there are any, as a page of Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The storms that a name stands for.
#[derive(Clone, Debug)]
struct Presets(Vec<Scenario>);

fn presets(text: &str) -> Result<Presets, String> {
    let mut known = preset::all();
    let names = known.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    known.retain(|scenario| text == ALL || scenario.name == text);
    if known.is_empty() {
        return Err(format!("accepted: {names}, {ALL}"));
    }
    Ok(Presets(known))
}

fn capacity(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|number: &NonZeroU32| number.get() <= 100_000);
    number.ok_or_else(|| "accepted: 1 to 100000".to_owned())
}

/// Runs the storms and writes what came of them.
pub fn run(global: &Global, args: &StormArgs) -> Result<ExitCode, CliError> {
    let seeds: Vec<u64> =
        (0..u64::from(args.seeds)).map(|number| args.seed.wrapping_add(number)).collect();
    let mut storms = Vec::new();
    for scenario in &args.preset.0 {
        let storm = args.changed(scenario);
        storms.push(Comparison::of(storm, &seeds, |kind| progress(scenario.name, kind)));
    }
    let report = Report { seeds, storms };
    if let Some(folder) = &args.plots {
        write_plots(folder, &report)?;
    }
    if let Some(file) = &args.report {
        write(file, &report.markdown(&command_line(), plots_from(file, args.plots.as_deref())))?;
    }
    match global.output {
        Format::Json => output::print_json(&report)?,
        Format::Table => output::print(&tables(&report))?,
    }
    Ok(Exit::Ok.into())
}

impl StormArgs {
    /// A preset with what the command line says otherwise.
    fn changed(&self, preset: &Scenario) -> Scenario {
        Scenario {
            steps: self.steps.unwrap_or(preset.steps),
            fresh_per_second: self.fresh.map_or(preset.fresh_per_second, f64::from),
            capacity: self.capacity.unwrap_or(preset.capacity),
            max_retries: self.max_retries.unwrap_or(preset.max_retries),
            ..preset.clone()
        }
    }
}

fn progress(scenario: &str, kind: Kind) {
    output::message(&format!("{scenario}: {}", kind.name()));
}

fn tables(report: &Report) -> String {
    let one = |storm: &Comparison| {
        let table = output::table(COLUMNS.map(|head| head), storm.cells());
        let Scenario { name, about, .. } = &storm.scenario;
        format!("{name}: {about}\n\n{table}\n{}\n", storm.standing())
    };
    report.storms.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn write_plots(folder: &Path, report: &Report) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(|error| not_written(folder, &error))?;
    for storm in &report.storms {
        let name = storm.scenario.name;
        write(&folder.join(format!("{name}-load.svg")), &plot::load(storm))?;
        write(&folder.join(format!("{name}-backlog.svg")), &plot::backlog(storm))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), CliError> {
    fs::write(file, text).map_err(|error| not_written(file, &error))
}

fn not_written(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("could not write {}: {error}", path.display()))
}

/// Where the plots are, seen from the page beside or above them.
fn plots_from<'a>(page: &Path, plots: Option<&'a Path>) -> Option<&'a str> {
    let plots = plots?;
    let beside = page.parent().and_then(|folder| plots.strip_prefix(folder).ok());
    match beside {
        Some(same) if same.as_os_str().is_empty() => Some("."),
        beside => beside.unwrap_or(plots).to_str(),
    }
}

/// The command as it was given, by the program's own name.
fn command_line() -> String {
    let arguments =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once("reprise".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}
