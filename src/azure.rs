//! Adapters, one service a file: the only code that knows Azure.

pub mod openai;
