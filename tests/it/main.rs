//! One test binary, so one link.

mod store_contract;
mod store_embedded;
mod store_record;
