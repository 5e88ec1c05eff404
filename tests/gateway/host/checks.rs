//! What Tollgate promises under the Functions host. Each runs in proxying mode, in forwarding mode, or
//! in both, as an app may find itself in either.

mod accounting;
mod callers;
mod layout;
mod lives;
mod streams;
mod trust;
mod upkeep;
