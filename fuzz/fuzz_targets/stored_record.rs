//! Any bytes as a record: it is read or refused; what is read is written so
//! that it reads the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reprise::store::record::{Header, decode, decode_evidence, encode};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_evidence(bytes);
    let (Ok(header), Ok(record)) = (Header::read(bytes), decode(bytes)) else { return };
    let again = decode(&encode(&record, header.event_at));
    assert_eq!(again.ok().as_ref(), Some(&record));
});
