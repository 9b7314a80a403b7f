//! Every byte of a log is cut off, flipped or blanked.

use super::*;
use crate::store::embedded::log::frame::SECTOR;

/// Lengths of entries, one batch each: small ones, some over several sectors,
/// and enough to reach a third segment.
const LENGTHS: [usize; 11] = [5, 0, 700, 1, 1200, 33, 1300, 64, 1100, 1500, 700];

/// A frame of the log: its file, and its bytes there.
struct Place {
    file: String,
    from: usize,
    to: usize,
}

/// A closed log with one acknowledged batch for each of [`LENGTHS`].
struct Sample {
    image: Image,
    entries: Vec<Vec<u8>>,
    places: Vec<Place>,
}

impl Sample {
    fn new() -> Self {
        // Zeros, so that nothing but whitening keeps sectors from being blank.
        let entries: Vec<Vec<u8>> = LENGTHS.iter().map(|&length| vec![0; length]).collect();
        let dir = temp_dir();
        let (log, ..) = open(dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            for entry in &entries {
                put(&log, entry).await;
            }
        });
        log.close().unwrap();

        let (mut segment, mut at) = (1, 512);
        let places = entries
            .iter()
            .map(|entry| {
                let size = frame::size(4 + entry.len());
                if at + size > 4096 {
                    (segment, at) = (segment + 1, 512);
                }
                at += size;
                Place { file: segment::name(segment), from: at - size, to: at }
            })
            .collect();
        Self { image: image(dir.path()), entries, places }
    }

    fn last(&self) -> &Place {
        self.places.last().unwrap()
    }

    /// What opening makes of the log with one file changed.
    fn after(
        &self,
        dir: &Path,
        file: &str,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<Vec<u8>>, OpenError> {
        let mut image = self.image.clone();
        change(image.get_mut(file).unwrap());
        restore(dir, &image);
        recover(dir)
    }

    /// Every byte of a file with frames; of a blank one, some.
    fn positions(&self, file: &str) -> impl Iterator<Item = usize> + use<> {
        let used = self.places.iter().any(|place| place.file == file);
        (0..4096).step_by(if used { 1 } else { 61 })
    }

    /// Whether any frame has this byte.
    fn holds(&self, file: &str, at: usize) -> bool {
        let mut places = self.places.iter();
        places.any(|place| place.file == file && (place.from..place.to).contains(&at))
    }
}

#[test]
fn the_sample_is_what_it_says() {
    let sample = Sample::new();
    let dir = temp_dir();
    restore(dir.path(), &sample.image);
    assert_eq!(recover(dir.path()).unwrap(), sample.entries);
    assert_eq!(sample.last().file, segment::name(3));
}

#[test]
fn a_file_cut_off_anywhere_keeps_every_whole_frame_or_is_refused() {
    let sample = Sample::new();
    let dir = temp_dir();
    for file in sample.image.keys() {
        for length in sample.positions(file) {
            let found = sample.after(dir.path(), file, |bytes| bytes.truncate(length));
            let cut = |place: &Place| place.file == *file && place.to > length;
            let whole = sample.places.iter().take_while(|place| !cut(place)).count();
            let goes_on = sample.places[whole..].iter().any(|place| !cut(place));
            match found {
                Ok(entries) => {
                    assert!(entries == sample.entries[..whole], "{file} cut at {length}");
                    assert!(!goes_on, "{file} cut at {length} unnoticed");
                }
                Err(OpenError::Corrupt { .. }) => {
                    assert!(length < 512 || goes_on, "{file} cut at {length} was refused");
                }
                Err(error) => panic!("{file} cut at {length}: {error}"),
            }
        }
    }
}

#[test]
fn a_flipped_byte_is_refused_or_harmless() {
    flip_each_byte(|_| 0xff);
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    flip_each_byte(|at| 1 << (at % 8));
}

fn flip_each_byte(mask: impl Fn(usize) -> u8) {
    let sample = Sample::new();
    let dir = temp_dir();
    for file in sample.image.keys() {
        for at in sample.positions(file) {
            match sample.after(dir.path(), file, |bytes| bytes[at] ^= mask(at)) {
                Ok(entries) => {
                    assert!(entries == sample.entries, "{file} flipped at {at}");
                    assert!(!sample.holds(file, at), "{file} flipped at {at} unnoticed");
                }
                Err(OpenError::Corrupt { file: named, offset, .. }) => {
                    assert!(named.ends_with(file), "{file} flipped at {at}: {named:?}");
                    assert!(offset as usize <= at, "{file} flipped at {at}: {offset}");
                }
                Err(error) => panic!("{file} flipped at {at}: {error}"),
            }
        }
    }
}

/// The parts of a frame that fall into one sector each.
fn portions(place: &Place) -> Vec<(usize, usize)> {
    let sectors = place.from / SECTOR..place.to.div_ceil(SECTOR);
    sectors
        .map(|sector| {
            let from = place.from.max(sector * SECTOR);
            (from, place.to.min((sector + 1) * SECTOR))
        })
        .collect()
}

#[test]
fn a_last_frame_without_some_of_its_sectors_is_cut() {
    let sample = Sample::new();
    let dir = temp_dir();
    let portions = portions(sample.last());
    assert!(portions.len() > 1);
    for missing in 1..1 << portions.len() {
        let found = sample.after(dir.path(), &sample.last().file, |bytes| {
            for (i, &(from, to)) in portions.iter().enumerate() {
                if missing >> i & 1 == 1 {
                    bytes[from..to].fill(0);
                }
            }
        });
        let (_, kept) = sample.entries.split_last().unwrap();
        assert!(found.unwrap() == kept, "missing {missing:b}");
    }
}

#[test]
fn an_earlier_frame_without_one_of_its_sectors_is_refused() {
    let sample = Sample::new();
    let dir = temp_dir();
    let (_, earlier) = sample.places.split_last().unwrap();
    for place in earlier {
        for (from, to) in portions(place) {
            let found = sample.after(dir.path(), &place.file, |bytes| bytes[from..to].fill(0));
            assert!(
                matches!(found, Err(OpenError::Corrupt { .. })),
                "{} without {from}..{to}: {found:?}",
                place.file
            );
        }
    }
}

#[test]
fn a_missing_or_foreign_file_is_refused() {
    let sample = Sample::new();
    let dir = temp_dir();
    for number in 1..3 {
        let mut image = sample.image.clone();
        image.remove(&segment::name(number));
        restore(dir.path(), &image);
        assert!(matches!(recover(dir.path()), Err(OpenError::Missing { .. })));
    }
    let foreign = Sample::new().image.remove(&segment::name(2)).unwrap();
    let found = sample.after(dir.path(), &segment::name(2), |bytes| *bytes = foreign);
    assert!(matches!(found, Err(OpenError::Corrupt { offset: 0, .. })));
}

/// Frames that were written between two syncs, by hand: `synced` for each.
fn unsynced(synced: &[u64]) -> (Image, Vec<Place>, u64) {
    let dir = temp_dir();
    open(dir.path()).unwrap().0.close().unwrap();
    let mut image = image(dir.path());
    let file = segment::name(1);
    let bytes = image.get_mut(&file).unwrap();
    let salt = frame::u64_at(bytes, 8);
    let mut places = Vec::new();
    let mut at = 512;
    for (&synced, sequence) in synced.iter().zip(1..) {
        let mut frame = vec![0; frame::HEADER];
        frame::push_entry(&mut frame, &[&[sequence as u8; 600]]);
        frame::seal(&mut frame, salt, sequence, synced, 7);
        bytes[at..at + frame.len()].copy_from_slice(&frame);
        places.push(Place { file: file.clone(), from: at, to: at + frame.len() });
        at += frame.len();
    }
    (image, places, salt)
}

#[test]
fn batches_between_two_syncs_may_tear_in_any_order() {
    let (image, places, _) = unsynced(&[0, 1, 1, 1]);
    let dir = temp_dir();
    for (lost, place) in places.iter().enumerate() {
        for (from, to) in portions(place) {
            let mut image = image.clone();
            image.get_mut(&place.file).unwrap()[from..to].fill(0);
            restore(dir.path(), &image);
            match recover(dir.path()) {
                // The first frame was synced before the second was written.
                Err(OpenError::Corrupt { offset, .. }) => assert_eq!((lost, offset), (0, 512)),
                found => assert_eq!(found.unwrap().len(), lost),
            }
        }
    }
}

#[tokio::test]
async fn a_log_goes_on_after_a_tear_and_finds_no_remains() {
    let (mut image, places, _) = unsynced(&[0, 0, 0, 0]);
    let (from, to) = portions(&places[1])[0];
    image.get_mut(&places[1].file).unwrap()[from..to].fill(0);
    let dir = temp_dir();
    restore(dir.path(), &image);

    let (log, recovered, entries) = open(dir.path()).unwrap();
    assert_eq!(entries, [[1; 600]]);
    let torn = recovered.torn.unwrap();
    assert_eq!(torn.offset as usize, places[1].from);
    assert_eq!(torn.offset + torn.bytes, places[3].to as u64);
    put(&log, b"next").await;
    drop(log);

    for _ in 0..2 {
        let (log, recovered, entries) = open(dir.path()).unwrap();
        assert_eq!(entries[1..], [b"next".to_vec()]);
        assert_eq!((recovered.torn, recovered.at_us), (None, 7));
        log.close().unwrap();
    }
}
