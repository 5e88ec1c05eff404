//! What `az monitor metrics list` prints: one answer, or a list of them for several resources.

use serde::Deserialize;

use super::{Figure, File, FileKind, Unknown, account_of};
use crate::domain::calendar;

#[derive(Deserialize)]
#[serde(untagged)]
enum Answers {
    One(Answer),
    Many(Vec<Answer>),
}

#[derive(Deserialize)]
struct Answer {
    value: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    #[serde(default)]
    id: String,
    name: Name,
    #[serde(default)]
    timeseries: Vec<Series>,
}

#[derive(Deserialize)]
struct Name {
    value: String,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default, alias = "metadataValues")]
    metadatavalues: Vec<Dimension>,
    #[serde(default)]
    data: Vec<Point>,
}

#[derive(Deserialize)]
struct Dimension {
    name: Name,
    value: Option<String>,
}

#[derive(Deserialize)]
struct Point {
    #[serde(alias = "timeStamp", alias = "timestamp")]
    time: Option<String>,
    total: Option<f64>,
}

/// What a metric counts.
#[derive(Clone, Copy)]
enum Counted {
    Input,
    Output,
    Requests,
}

fn counted(name: &str) -> Option<Counted> {
    Some(match name.to_ascii_lowercase().as_str() {
        "processedprompttokens" | "inputtokens" => Counted::Input,
        "generatedtokens" | "outputtokens" => Counted::Output,
        "azureopenairequests" | "modelrequests" => Counted::Requests,
        _ => return None,
    })
}

pub(super) fn read(bytes: &[u8]) -> Result<File, Unknown> {
    let answers = serde_json::from_slice(bytes).map_err(|_| {
        Unknown("JSON with `value[].name.value` and `value[].timeseries[]` was expected".to_owned())
    })?;
    let answers = match answers {
        Answers::One(answer) => vec![answer],
        Answers::Many(answers) => answers,
    };
    let mut file = File { kind: FileKind::Metrics, ..File::default() };
    let mut is_known = false;
    for metric in answers.into_iter().flat_map(|answer| answer.value) {
        let Some(counted) = counted(&metric.name.value) else { continue };
        let resource = account_of(&metric.id)
            .ok_or_else(|| Unknown(format!("`{}` is no id of a metric of Azure OpenAI", metric.id)))?;
        is_known = true;
        match counted {
            Counted::Input | Counted::Output => file.has_tokens = true,
            Counted::Requests => file.has_requests = true,
        }
        for series in metric.timeseries {
            add(&mut file, &resource, &series, counted);
        }
    }
    if is_known {
        Ok(file)
    } else {
        Err(Unknown(
            "none of the metrics ProcessedPromptTokens, GeneratedTokens and AzureOpenAIRequests is in it"
                .to_owned(),
        ))
    }
}

fn add(file: &mut File, resource: &str, series: &Series, counted: Counted) {
    let mut dimensions = series.metadatavalues.iter();
    let deployment =
        dimensions.find(|dimension| dimension.name.value.eq_ignore_ascii_case("ModelDeploymentName"));
    let deployment = deployment.and_then(|dimension| dimension.value.as_ref());
    for point in &series.data {
        let count = whole(point.total.unwrap_or_default());
        if count == 0 {
            continue;
        }
        let mut figure = Figure {
            resource: resource.to_owned(),
            deployment: deployment.map(|name| name.to_ascii_lowercase()),
            day: point.time.as_deref().and_then(|time| calendar::day(time.get(..10)?)),
            ..Figure::default()
        };
        match counted {
            Counted::Input => figure.input_tokens = count,
            Counted::Output => figure.output_tokens = count,
            Counted::Requests => figure.requests = count,
        }
        file.figures.push(figure);
    }
}

/// A count, which Azure writes with a decimal point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "negative counts are none")]
fn whole(total: f64) -> u64 {
    total.max(0.0).round() as u64
}
