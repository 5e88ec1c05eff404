//! The rules, as plain values and functions: no I/O, no clock, no dice.

pub mod actor;
pub mod api;
pub mod apportion;
pub mod audit;
pub mod balance;
pub mod breaker;
pub mod calendar;
pub mod capacity;
pub mod diagnosis;
#[cfg(test)]
pub(crate) mod dice;
pub mod estimate;
pub mod forecast;
pub mod ids;
pub mod key;
pub mod limit;
pub mod meter;
pub mod price;
pub mod prompt;
pub mod retry;
pub mod subscription;
pub mod token;
pub mod tokens;
pub mod trace;
pub mod units;
pub mod usage;
