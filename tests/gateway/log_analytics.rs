//! The ledger's new rows reach Log Analytics, whatever fails on the way.

mod adapter;
