//! Tollgate: a keyless, metered gateway to Azure OpenAI in one Azure Functions app.
//!
//! | module | what it is for | may import |
//! |---|---|---|
//! | [`domain`] | the rules, as plain values and functions | nothing of ours |
//! | [`ports`] | what we need from outside, one small trait each | `domain` |
//! | [`config`] | settings and the gateway configuration, checked whole | `domain` |
//! | [`simulator`] | an Azure OpenAI resource that is not there | as an adapter |
//! | [`cli`] | the commands | everything |
//!
//! `tests/gateway/architecture.rs` holds this law.

pub mod app;
pub mod azure;
pub mod cli;
pub mod config;
pub mod domain;
pub mod issuing;
pub mod ledger;
pub mod memory;
pub mod ports;
pub mod proxy;
pub mod routes;
pub mod server;
pub mod simulator;
pub mod spool;
pub mod sql;
pub mod wiring;
