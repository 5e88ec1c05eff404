//! The rules, as plain values and functions: no I/O, no clock, no dice.

pub mod tokens;
