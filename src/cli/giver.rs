//! Who gives an order, as every subcommand asks for it.

use clap::Args;

/// Who gives an order.
#[derive(Args, Clone, Debug)]
pub struct GivenBy {
    /// Who orders it [default: $USER, or the account's number]
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env = true,
        default_value = "",
        hide_default_value = true
    )]
    by: String,
}

impl From<GivenBy> for String {
    /// As was said, or the account, which has a number where it has no name.
    fn from(GivenBy { by }: GivenBy) -> Self {
        if by.is_empty() { format!("uid {}", rustix::process::getuid()) } else { by }
    }
}
