//! Fresh identities: of calls that may have to be repeated, and of runs.

use jiff::Timestamp;

use crate::chance;

/// Sixteen random bytes: the same call keeps them when it is repeated.
pub fn request_id() -> [u8; 16] {
    chance::bytes()
}

/// The id of a new run: a UUID of version 7, so that runs sort by their start.
pub fn run_id() -> String {
    let millis = Timestamp::now().as_millisecond().unsigned_abs();
    uuid_v7(millis, chance::bytes())
}

fn uuid_v7(millis: u64, random: [u8; 16]) -> String {
    let mut bytes = random;
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = 0x70 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_a_uuid_that_begins_with_its_time() {
        assert_eq!(uuid_v7(0x0123_4567_89ab, [0xff; 16]), "01234567-89ab-7fff-bfff-ffffffffffff");
    }
}
