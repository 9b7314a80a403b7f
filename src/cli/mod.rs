//! The command line: one file per subcommand.

pub mod bench;

/// A retry coordinator: may this step be tried again, and when?
#[derive(Debug, clap::Parser)]
#[command(name = "reprise", version)]
pub struct Cli {
    /// How data is written.
    #[arg(long, global = true, value_enum, default_value = "text")]
    output: bench::Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Bench(bench::Args),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    ///
    /// When it could not be done.
    pub fn run(self) -> Result<(), bench::BenchError> {
        match self.command {
            Command::Bench(args) => bench::run(args, self.output),
        }
    }
}
