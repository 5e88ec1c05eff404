//! An Azure OpenAI that is not there: for `local`, for tests, for load.

use std::net::SocketAddr;

use axum::Router;

/// How the simulated resource behaves. Each has a flag of `tollgate simulate`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Knobs {}

/// The flags of `tollgate simulate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub knobs: Knobs,
}

/// The resource, as routes.
pub fn router(_knobs: Knobs) -> Router {
    Router::new()
}
