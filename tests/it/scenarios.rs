//! Runs every transcript in `tests/scenarios` through the services' own traits,
//! on each store. `tests/scenarios/README.md` tells how to read and write one.

mod span;
mod stage;
mod told;
mod transcript;

use std::{
    fs,
    path::{Path, PathBuf},
};

use stage::Stage;
use transcript::Transcript;

#[test]
fn every_transcript_holds_on_the_store_in_memory() {
    let plays = |transcript: &Transcript| !transcript.restarts();
    play_all(plays, Stage::in_memory);
}

#[test]
fn every_transcript_holds_on_the_durable_store() {
    play_all(|_| true, Stage::durable);
}

fn play_all(plays: impl Fn(&Transcript) -> bool, stage: impl Fn() -> Stage) {
    let stories = stories();
    assert!(stories.len() >= 40, "{} transcripts were found", stories.len());
    let failed: Vec<String> =
        stories.iter().filter_map(|path| hold(path, &plays, &stage).err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} transcripts do not hold\n\n{}\n",
        failed.len(),
        stories.len(),
        failed.join("\n\n")
    );
}

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut stories: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    stories.sort();
    stories
}

fn hold(
    path: &Path,
    plays: impl Fn(&Transcript) -> bool,
    stage: impl Fn() -> Stage,
) -> Result<(), String> {
    let name = path.file_name().unwrap().display();
    let text = fs::read_to_string(path).unwrap();
    let transcript =
        Transcript::parse(&text).map_err(|(line, problem)| format!("{name}:{line}: {problem}"))?;
    if plays(&transcript) {
        play(&transcript, stage()).map_err(|(line, problem)| format!("{name}:{line}: {problem}"))
    } else {
        Ok(())
    }
}

/// Plays a transcript, or says at which line it went otherwise, and how.
fn play(transcript: &Transcript, mut stage: Stage) -> Result<(), (usize, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for line in &transcript.lines {
            let told = stage.play(line).await.map_err(|problem| (line.number, problem))?;
            let Some(expected) = &line.expected else { continue };
            if let Err(actual) = expected.compare(&told) {
                return Err((
                    line.number,
                    format!("it went otherwise\n{}", transcript.diff(line, &actual)),
                ));
            }
        }
        Ok(())
    })
}

/// What is wrong with a transcript.
fn problem(text: &str) -> (usize, String) {
    match Transcript::parse(text) {
        Ok(transcript) => {
            play(&transcript, Stage::in_memory()).expect_err("something is wrong with it")
        }
        Err(problem) => problem,
    }
}

#[test]
fn a_mismatch_shows_the_story_so_far_and_both_answers() {
    let story = "\
# Four is not one.
0s  begin etl/load                           -> granted attempt=1
2s  succeed                                  -> done SUCCEEDED attempt=1
3s  begin                                    -> granted attempt=4
";
    let (line, shown) = problem(story);
    assert_eq!(line, 4);
    let expected = "\
it went otherwise
      1  # Four is not one.
      2  0s  begin etl/load                           -> granted attempt=1
      3  2s  succeed                                  -> done SUCCEEDED attempt=1
  -   4  3s  begin                                    -> granted attempt=4
  +   4                                               -> done SUCCEEDED    (\"attempt\" is not among what is told: ";
    assert!(shown.starts_with(expected), "{shown}");
    let (_, shown) = problem("# Wrong.\n0s begin a/b -> granted attempt=2 lease=1m\n");
    assert!(shown.ends_with("\n  +   2               -> granted attempt=1 lease=30s"), "{shown}");
}

#[test]
fn what_cannot_be_understood_is_not_passed_over() {
    for (story, line, part) in [
        ("0s begin a/b -> granted\n", 1, "begins with what it tells"),
        ("# None.\n0s restart\n", 2, "nothing is expected"),
        (
            "# Missing.\n0s begin a/b\n1s succeed -> done SUCCEEDED\n",
            2,
            "an answer is missing: -> granted",
        ),
        ("# Empty.\n0s begin a/b ->\n", 2, "begins with what was answered"),
        ("# Verb.\n0s start a/b -> granted\n", 2, "no such thing to do: start"),
        ("# Word.\n0s begin a/b hots=x -> granted\n", 2, "not understood: hots=x"),
        ("# Twice.\n0s begin a/b host=x host=y -> granted\n", 2, "host is said twice"),
        ("# Back.\n5s begin a/b -> granted\n1s succeed -> done SUCCEEDED\n", 3, "backwards"),
        ("# Policy.\npolicy p\n  max_retrys: 1\n0s begin a/b -> granted\n", 2, "max_retrys"),
        ("# Step.\n0s begin -> granted\n", 2, "which step?"),
        ("# Attempt.\n0s fail a/b ERROR -> retry BACKOFF\n", 2, "which attempt?"),
        ("# Class.\n0s fail a/b BAD attempt=1 -> retry BACKOFF\n", 2, "BAD is not a class"),
        ("# Replay.\n0s begin a/b -> granted\n0s repeat -> granted\n", 3, "replayed granted"),
        (
            "# Range.\n0s fail a/b ERROR attempt=1 -> retry BACKOFF in 5s..10s\n",
            2,
            "retry BACKOFF in ",
        ),
    ] {
        let (at, shown) = problem(story);
        assert_eq!(at, line, "{story}{shown}");
        assert!(shown.contains(part), "{story}{shown}");
    }
}
