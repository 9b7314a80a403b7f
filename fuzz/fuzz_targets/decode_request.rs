//! Any bytes as any request: it is read or refused, with a reason, and never
//! takes the process down.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use reprise::{grpc::convert::request, proto};

fn decoded<M: Message + Default>(bytes: &[u8], read: impl FnOnce(M)) {
    if let Ok(message) = M::decode(bytes) {
        read(message);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 5 {
        0 => decoded(bytes, |message: proto::BeginAttemptRequest| drop(request::begin(message))),
        1 => decoded(bytes, |message: proto::HeartbeatRequest| drop(request::heartbeat(message))),
        2 => decoded(bytes, |message: proto::ReportAttemptRequest| drop(request::report(message))),
        3 => decoded(bytes, |message: proto::BatchReportAttemptsRequest| {
            drop(request::batch(message));
        }),
        _ => decoded(bytes, |message: proto::GetStepRequest| drop(request::get_step(message))),
    }
});
