//! Adapters, one service a file: the only code that knows Azure.

pub mod caller_tokens;
pub mod cloud;
pub mod entra;
pub mod event_hubs;
pub mod key_vault;
pub mod log_analytics;
pub mod openai;
pub mod postgres;
pub mod transport;
