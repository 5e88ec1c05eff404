//! One test binary: the promises of the contract, each checked through the real routes.

mod clients;
mod simulator;
