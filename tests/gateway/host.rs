//! The Functions host, as a custom handler sees it, and what Tollgate must do under it.
//!
//! The harness reads a folder that `tollgate package` staged, starts the handler in it and stands
//! before it, as strict as the host is strict: what would be lost, hang or be refused there is lost,
//! hangs and is refused here. `strictness` proves that, with handlers that misbehave.

mod activity;
mod app;
mod backend;
mod checks;
mod client;
mod envelope;
mod forwarding;
mod front;
mod function;
mod hub;
mod process;
mod proxying;
mod rig;
mod strictness;
mod template;
mod timer;
mod wire;
