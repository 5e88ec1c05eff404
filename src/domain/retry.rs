//! May this answer go to the caller, or must another backend be asked?
//!
//! Only before the caller has seen a byte: it would otherwise see two beginnings.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::diagnosis::Diagnosis;

/// What a backend's status means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The caller's business: it goes out unchanged.
    Pass,
    /// This backend cannot serve it now; another may.
    TryAnother(Reason),
    /// The backend refuses the gateway itself: the operator's business, never shown to the caller.
    Misconfigured,
}

/// Why another backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Throttled,
    Failed,
}

/// Weighs a backend's answer. Where a status has several meanings its body decides: a 404 for a
/// deployment that is not there is the operator's fault, one for an unknown item the caller's.
pub fn weigh(status: StatusCode, diagnosis: Diagnosis) -> Verdict {
    match status.as_u16() {
        429 => Verdict::TryAnother(Reason::Throttled),
        // An interim answer where the last one should be: nobody asked to switch protocols.
        100..=199 | 408 | 499 | 500 | 502 | 503 | 504 => Verdict::TryAnother(Reason::Failed),
        401 | 403 => Verdict::Misconfigured,
        400 if diagnosis == Diagnosis::WrongTenant => Verdict::Misconfigured,
        404 if diagnosis == Diagnosis::DeploymentMissing => Verdict::Misconfigured,
        _ => Verdict::Pass,
    }
}

/// What a backend that gives no time is left alone for after a 429.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// Accounts with a low quota are told to wait for a day; what is true then is asked again sooner.
pub const MAX_WAIT: Duration = Duration::from_mins(1);

/// How long the backend asks to be left alone, by the first header that says more than 0. Azure writes it
/// in five ways, one of them misspelt. -1 occurs and says nothing; 0 says that there is no need to wait,
/// unless another header knows of one.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    sensible([told_wait(headers), reset(headers)])
}

/// The same, without the times at which its rate limits are as new: those come with every answer, and
/// only a 429 means them.
pub fn told_wait(headers: &HeaderMap) -> Option<Duration> {
    let millis = text(headers, "retry-after-ms").and_then(|ms| ms.parse::<f64>().ok());
    let seconds = text(headers, "retry-after").and_then(in_seconds);
    sensible([millis.and_then(|ms| duration(ms / 1_000.0)), seconds])
}

fn sensible(waits: [Option<Duration>; 2]) -> Option<Duration> {
    let said = || waits.into_iter().flatten();
    said().find(|wait| !wait.is_zero()).or_else(|| said().next())
}

fn reset(headers: &HeaderMap) -> Option<Duration> {
    let resets = [
        "x-ratelimit-reset-tokens",
        "x-ratelimit-reset-requests",
        "x-rate-limit-reset-tokens",
        "x-rate-limit-reset-requests",
    ];
    // Both budgets must have room again: the longer of the two.
    let waits = resets.into_iter().filter_map(|name| text(headers, name));
    waits.filter_map(|text| in_seconds(text).or_else(|| spelled_out(text))).max()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn in_seconds(text: &str) -> Option<Duration> {
    text.parse::<f64>().ok().and_then(duration)
}

/// `None` for what is no time to wait; no more than [`MAX_WAIT`].
fn duration(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_WAIT).min(MAX_WAIT))
}

/// OpenAI's spelling of a duration: `1s`, `6m0s`, `1h2m3.5s`, `20ms`.
fn spelled_out(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit_on) = rest.split_at(digits);
        let unit = unit_on.find(|c: char| c.is_ascii_digit()).unwrap_or(unit_on.len());
        let (unit, after) = unit_on.split_at(unit);
        let factor = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    duration(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_backend_might_do_better_is_tried_again() {
        use Reason::{Failed, Throttled};
        for (status, diagnosis, verdict) in [
            (200, None, Verdict::Pass),
            (101, None, Verdict::TryAnother(Failed)),
            (400, None, Verdict::Pass),
            (400, Some(Diagnosis::WrongTenant), Verdict::Misconfigured),
            (404, None, Verdict::Pass),
            (404, Some(Diagnosis::DeploymentMissing), Verdict::Misconfigured),
            (401, Some(Diagnosis::RoleMissing), Verdict::Misconfigured),
            (403, None, Verdict::Misconfigured),
            (409, None, Verdict::Pass),
            (422, None, Verdict::Pass),
            (408, None, Verdict::TryAnother(Failed)),
            (429, None, Verdict::TryAnother(Throttled)),
            (499, None, Verdict::TryAnother(Failed)),
            (500, None, Verdict::TryAnother(Failed)),
            (501, None, Verdict::Pass),
            (502, None, Verdict::TryAnother(Failed)),
            (503, None, Verdict::TryAnother(Failed)),
            (504, None, Verdict::TryAnother(Failed)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let diagnosis = diagnosis.unwrap_or(Diagnosis::Unknown);
            assert_eq!(weigh(status, diagnosis), verdict, "{status} {diagnosis:?}");
        }
    }

    #[test]
    fn the_time_to_wait_is_read_in_every_spelling() {
        let wait_of = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(*name, value.parse().unwrap());
            }
            wait(&headers).map(|wait| wait.as_millis())
        };
        for (lines, millis) in [
            (&[("retry-after-ms", "200"), ("retry-after", "1")][..], Some(200)),
            (&[("retry-after", "7")], Some(7_000)),
            (&[("x-ratelimit-reset-requests", "1s"), ("x-ratelimit-reset-tokens", "6m0s")], Some(60_000)),
            (&[("x-rate-limit-reset-tokens", "12")], Some(12_000)),
            (&[("x-ratelimit-reset-tokens", "90ms")], Some(90)),
            (&[("retry-after", "86400")], Some(60_000)),
            (&[("retry-after", "1e300")], Some(60_000)),
            (&[("retry-after-ms", "-1"), ("retry-after", "3")], Some(3_000)),
            (&[("retry-after", "0")], Some(0)),
            (&[("retry-after-ms", "0"), ("retry-after", "4")], Some(4_000)),
            (&[("retry-after", "0"), ("x-ratelimit-reset-tokens", "5s")], Some(5_000)),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "")], None),
            (&[("retry-after", "soon")], None),
            (&[], None),
        ] {
            assert_eq!(wait_of(lines), millis, "{lines:?}");
        }
    }
}
