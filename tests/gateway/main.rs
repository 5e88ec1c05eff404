//! One test binary: the promises of the contract, each checked through the real routes.

#![expect(clippy::unwrap_used, reason = "a panic in a test's helper is the report")]

mod architecture;
mod azure;
mod backends;
mod bad_input;
mod callers;
mod chaos;
mod clients;
mod configuration;
mod description;
mod doctor;
mod durability;
mod entra_callers;
mod failover;
mod finance;
mod host;
mod identity;
mod key_vault;
mod ledger;
mod log_analytics;
mod management;
mod metering;
mod moving;
mod postgres;
mod publishing;
mod responses;
mod simulator;
mod start;
mod stores;
mod streaming;
mod support;
mod tls;
