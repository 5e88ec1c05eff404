//! Settings and the gateway configuration, checked whole.
