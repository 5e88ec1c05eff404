//! The files of the function app, carried in the binary so that it can package itself.
//!
//! The files in the repository are the single source; a test refuses a folder that is not listed.

/// What the host runs: `customHandler.description.defaultExecutablePath` in host.json. Core Tools
/// gives the execute bit only to the entry whose path is this, letter for letter.
pub const HANDLER: &str = "handler";
pub const HOST_JSON: &str = include_str!("../../../host.json");
pub const FUNCIGNORE: &str = include_str!("../../../.funcignore");
pub const SAMPLE_SETTINGS: &str = include_str!("../../../local.settings.sample.json");

/// Each function's folder, and its `function.json`.
pub const FUNCTIONS: [(&str, &str); 10] = [
    ("dashboard", include_str!("../../../function-definitions/dashboard/function.json")),
    ("deployments", include_str!("../../../function-definitions/deployments/function.json")),
    ("healthz", include_str!("../../../function-definitions/healthz/function.json")),
    ("openai", include_str!("../../../function-definitions/openai/function.json")),
    ("openapi", include_str!("../../../function-definitions/openapi/function.json")),
    ("reports", include_str!("../../../function-definitions/reports/function.json")),
    ("subscriptions", include_str!("../../../function-definitions/subscriptions/function.json")),
    ("token-accounting", include_str!("../../../function-definitions/token-accounting/function.json")),
    ("upkeep", include_str!("../../../function-definitions/upkeep/function.json")),
    ("v1", include_str!("../../../function-definitions/v1/function.json")),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_function_of_the_repository_is_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("function-definitions");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let carried: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, carried);
    }

    #[test]
    fn the_host_is_told_to_run_the_file_that_is_staged() {
        let host: serde_json::Value = serde_json::from_str(HOST_JSON).unwrap();
        assert_eq!(host["customHandler"]["description"]["defaultExecutablePath"], HANDLER);
    }
}
