//! What we need from outside, one small trait each, in our words: no adapter's type crosses it.
