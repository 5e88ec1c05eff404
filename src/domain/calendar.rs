//! Months, in UTC: what reports are of.

use time::macros::format_description;
use time::{Date, Duration, Month as Name};

use super::units::UnixMillis;

/// A month of the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    first: Date,
}

impl Month {
    /// Of `2026-11`; `None` for anything else, and before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let format = format_description!("[year]-[month]-[day]");
        let first = Date::parse(&format!("{text}-01"), format).ok()?;
        (first.year() >= 1970).then_some(Self { first })
    }

    /// In which a moment lies.
    pub fn of(moment: UnixMillis) -> Self {
        Self::of_date(moment.to_datetime().date())
    }

    pub fn of_date(date: Date) -> Self {
        Self { first: date.replace_day(1).expect("every month has a first day") }
    }

    pub fn first_day(self) -> Date {
        self.first
    }

    /// How many days it has.
    pub fn days(self) -> u8 {
        self.first.month().length(self.first.year())
    }

    /// How many hours it has.
    pub fn hours(self) -> u32 {
        u32::from(self.days()) * 24
    }

    /// Its first moment.
    pub fn start(self) -> UnixMillis {
        start_of(self.first)
    }

    /// The first moment behind it.
    pub fn end(self) -> UnixMillis {
        let last_day = Duration::days(i64::from(self.days()));
        start_of(self.first.checked_add(last_day).unwrap_or(Date::MAX))
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.first.year(), u8::from(self.first.month()))
    }
}

/// The first moment of a day.
pub fn start_of(day: Date) -> UnixMillis {
    UnixMillis(day.midnight().assume_utc().unix_timestamp() * 1_000)
}

/// A day of `2026-11-21`, as the ledger's groups name it.
pub fn day(text: &str) -> Option<Date> {
    Date::parse(text, format_description!("[year]-[month]-[day]")).ok()
}

/// A day of another form: `11/21/2026`, as Azure's older exports have it.
pub fn american_day(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '/');
    let mut number = || parts.next()?.trim().parse::<u16>().ok();
    let (month, day, year) = (number()?, number()?, number()?);
    let month = Name::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_knows_its_ends() {
        let month = Month::parse("2028-02").unwrap();
        assert_eq!((month.to_string(), month.days(), month.hours()), ("2028-02".to_owned(), 29, 696));
        assert_eq!(month.start().to_rfc3339(), "2028-02-01T00:00:00.000Z");
        assert_eq!(month.end().to_rfc3339(), "2028-03-01T00:00:00.000Z");
        assert_eq!(Month::of(UnixMillis(month.end().0 - 1)), month);
        assert_eq!(Month::parse("2026-12").unwrap().end().to_rfc3339(), "2027-01-01T00:00:00.000Z");
        for text in ["2026-13", "2026", "2026-11-01", "1969-12", "", "11-2026"] {
            assert_eq!(Month::parse(text), None, "{text}");
        }
        assert_eq!(american_day("11/21/2026"), day("2026-11-21"));
        assert_eq!(american_day("21/11/2026"), None);
    }
}
