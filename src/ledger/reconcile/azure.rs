//! Azure's own figures, out of the files that its tools write.
//!
//! Two sorts are read. What `az monitor metrics list` prints: `value[].timeseries[]`, one for each value of the dimension
//! `ModelDeploymentName`, with a `total` for each `timeStamp`
//! (<https://learn.microsoft.com/rest/api/monitor/metrics/list>; the metrics are listed at
//! <https://learn.microsoft.com/azure/ai-foundry/openai/monitor-openai-reference>). And the exports of Cost Management,
//! whose columns are called otherwise for each kind of account
//! (<https://learn.microsoft.com/azure/cost-management-billing/dataset-schema/schema-index>).

use rust_decimal::Decimal;
use time::Date;

mod export;
mod metrics;

/// Some figure of Azure's: for a resource, perhaps a deployment of it, perhaps a day.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// The resource's name, in small letters.
    pub resource: String,
    /// The resource's own name for it, in small letters.
    pub deployment: Option<String>,
    pub day: Option<Date>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub requests: u64,
    pub cost: Decimal,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    pub kind: FileKind,
    pub figures: Vec<Figure>,
    /// Which kinds of figures are in it: what is not must not look like zero.
    pub has_tokens: bool,
    pub has_requests: bool,
    /// Of the costs; `None`: it has none.
    pub currency: Option<String>,
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileKind {
    #[default]
    Metrics,
    CostExport,
}

impl FileKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::CostExport => "cost_export",
        }
    }
}

/// The file is none that is known; the text says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is neither what `az monitor metrics list --output json` prints nor a CSV export of Cost Management: {0}"
)]
pub struct Unknown(pub String);

/// Reads a file of either sort.
///
/// # Errors
/// [`Unknown`] when it is neither.
pub fn read(bytes: &[u8]) -> Result<File, Unknown> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(Unknown("it is empty".to_owned())),
        Some(b'{' | b'[') => metrics::read(bytes),
        Some(_) => export::read(bytes),
    }
}

/// The name of an account in a resource's id, in small letters.
fn account_of(id: &str) -> Option<String> {
    let id = id.to_ascii_lowercase();
    let (_, behind) = id.split_once("/microsoft.cognitiveservices/accounts/")?;
    let name = behind.split('/').next().unwrap_or(behind);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
