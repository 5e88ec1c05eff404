//! Which trace does this request belong to? W3C Trace Context, version 00.
//!
//! The caller's trace id goes on to the backend, under a span of our own; where the caller has none,
//! one begins here.

use std::fmt;

use super::ids::RequestId;

/// A trace id and the span of this request in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: u128,
    pub span_id: u64,
    pub flags: u8,
}

impl Trace {
    /// Continues the caller's `traceparent`, or begins a trace when there is none that can be read.
    /// The span's id is taken from the request's, which is random where this one must be.
    pub fn of_request(traceparent: Option<&str>, request: RequestId) -> Self {
        let (high, low) = request.0.as_u64_pair();
        let span_id = low.max(1);
        match traceparent.and_then(parse) {
            Some((trace_id, flags)) => Self { trace_id, span_id, flags },
            None => Self { trace_id: (u128::from(high) << 64) | u128::from(low), span_id, flags: 0 },
        }
    }
}

fn parse(text: &str) -> Option<(u128, u8)> {
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if !is_hex(version, 2)
        || version == "ff"
        || !is_hex(trace, 32)
        || !is_hex(parent, 16)
        || !is_hex(flags, 2)
    {
        return None;
    }
    // Version 00 has exactly four fields; a later one may have more.
    if version == "00" && parts.next().is_some() {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    Some((trace_id, u8::from_str_radix(flags, 16).ok()?))
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_goes_on_under_a_span_of_ours() {
        let request = RequestId::draw();
        let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let ours = Trace::of_request(Some(theirs), request).to_string();
        assert!(ours.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{ours}");
        assert!(ours.ends_with("-01") && !ours.contains("b7ad6b7169203331"), "{ours}");
    }

    #[test]
    fn an_unreadable_one_begins_a_new_trace() {
        let request = RequestId::draw();
        let new = Trace::of_request(None, request);
        for bad in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(Trace::of_request(Some(bad), request), new, "{bad}");
        }
        assert_ne!(new.trace_id, 0);
    }
}
