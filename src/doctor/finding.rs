//! One thing that was found, good or bad.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// The gateway works, and not as well or as safely as it could.
    Warn,
    /// Something does not work.
    Fault,
}

/// What was examined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Subject {
    /// Such as `backend`.
    #[serde(rename = "about")]
    pub kind: &'static str,
    /// Which of them.
    pub name: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    #[serde(flatten)]
    pub subject: Subject,
    /// For programs: stable.
    pub code: &'static str,
    /// In one line, without a full stop.
    #[serde(rename = "message")]
    pub what: String,
    /// What mends it, a command wherever one does; `None` for what is in order.
    pub mend: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fault => "fault",
        };
        write!(f, "{level:<5}  {}", self.subject.kind)?;
        if let Some(name) = &self.subject.name {
            write!(f, " {name}")?;
        }
        write!(f, ": {}", one_line(&self.what))?;
        match &self.mend {
            Some(mend) => write!(f, "; to mend it: {}", one_line(mend)),
            None => Ok(()),
        }
    }
}

/// What a service said may have any form; a finding has one line.
fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
