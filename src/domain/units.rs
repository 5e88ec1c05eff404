//! Quantities that must not be mixed.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z. In JSON: RFC 3339 in UTC with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

const HOUR_MILLIS: i64 = 3_600_000;

const RFC3339_MILLIS: &[time::format_description::BorrowedFormatItem<'static>] =
    time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The last instant that RFC 3339 can write: 9999-12-31T23:59:59.999Z.
const MAX_MILLIS: i64 = 253_402_300_799_999;

impl UnixMillis {
    /// The moment an RFC 3339 text names, whatever its offset; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(Self::from_datetime)
    }

    /// `None` outside the years 1970 to 9999.
    pub fn from_datetime(at: OffsetDateTime) -> Option<Self> {
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000)
            .ok()
            .filter(|millis| (0..=MAX_MILLIS).contains(millis))
            .map(Self)
    }

    /// The same moment on a UTC calendar; moments that a calendar cannot show stop at its ends.
    pub fn to_datetime(self) -> OffsetDateTime {
        let millis = self.0.clamp(0, MAX_MILLIS);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
            .expect("the clamped range is inside what a calendar can show")
    }

    /// `2026-11-21T09:00:00.123Z`.
    pub fn to_rfc3339(self) -> String {
        self.to_datetime().format(RFC3339_MILLIS).expect("every part of the format is in a date-time")
    }

    /// The first moment of this moment's UTC month.
    #[must_use]
    pub fn month_start(self) -> Self {
        let month = self.to_datetime().date().replace_day(1).expect("every month has a first day");
        Self(month.midnight().assume_utc().unix_timestamp() * 1_000)
    }

    /// The first moment of this moment's hour.
    #[must_use]
    pub fn hour_start(self) -> Self {
        Self(self.0 - self.0.rem_euclid(HOUR_MILLIS))
    }

    /// Full hours from here to a later moment.
    pub fn hours_until(self, later: Self) -> u32 {
        u32::try_from((later.0 - self.0) / HOUR_MILLIS).unwrap_or(0)
    }
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

impl JsonSchema for UnixMillis {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time of the years 1970 to 9999"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_any_offset_and_written_in_utc() {
        let at = UnixMillis::parse("2026-11-21T10:00:00.1234+01:00").unwrap();
        assert_eq!(at.to_rfc3339(), "2026-11-21T09:00:00.123Z");
        assert_eq!(at.month_start().to_rfc3339(), "2026-11-01T00:00:00.000Z");
        assert_eq!(UnixMillis::parse("yesterday"), None);
        assert_eq!(UnixMillis::parse("1969-12-31T23:59:59Z"), None);
    }
}
