//! Compiles the contract. protox reads the proto files itself, so that nothing
//! but the Rust toolchain is needed; the descriptors also serve reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 2] = ["reprise/v1/retry_service.proto", "reprise/v1/admin_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("reprise.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".reprise.v1")
        // In the order of their keys, so that what is told is always told alike.
        .btree_map(".reprise.v1")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(descriptors)?;
    Ok(())
}
