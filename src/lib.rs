//! Tollgate: a keyless, metered gateway to Azure OpenAI in one Azure Functions app.
//!
//! | module | what it is for | may import |
//! |---|---|---|
//! | [`domain`] | the rules, as plain values and functions | nothing of ours |
//! | [`config`] | settings and the gateway configuration, checked whole | `domain` |
//! | [`ports`] | what we need from outside, one small trait each | `config`, `domain` |
//! | [`proxy`] | the life of a proxied request | `ports` and below |
//! | [`ledger`] | the life of a usage batch; reports | `ports` and below |
//! | [`issuing`] | subscriptions and their keys | `ports` and below |
//! | [`renewal`] | the life of the configuration: looked at again, taken up whole | `ports` and below |
//! | [`publisher`] | the life of a usage event until it counts | `spool`, `ports` and below |
//! | [`app`] | what the routes can reach | the journeys (the four above) and below |
//! | [`routes`] | every route; the only HTTP of the gateway's own | `app` and below |
//! | [`azure`] | the backends, Entra, Key Vault, Log Analytics | `ports` and below, as every adapter |
//! | [`sql`] | subscriptions and ledger in SQLite or PostgreSQL | as an adapter |
//! | [`memory`] | ports inside this process | as an adapter |
//! | [`spool`] | where usage waits on disk | as an adapter |
//! | [`doctor`] | asks everything that we depend on, and says how to mend it | as an adapter |
//! | [`simulator`] | an Azure OpenAI resource that is not there | as an adapter |
//! | [`server`] | listens, and gives each connection to the routes | nothing of ours |
//! | [`wiring`] | which adapter serves which port | everything |
//! | [`cli`] | the commands | everything |
//!
//! `tests/gateway/architecture.rs` holds this law.

pub mod app;
pub mod azure;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod issuing;
pub mod ledger;
pub mod memory;
pub mod ports;
pub mod proxy;
pub mod publisher;
pub mod renewal;
pub mod routes;
pub mod server;
pub mod simulator;
pub mod spool;
pub mod sql;
pub mod wiring;
