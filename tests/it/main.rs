//! One test binary, so one link.

mod bench;
