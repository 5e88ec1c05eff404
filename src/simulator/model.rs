//! What model answers under a deployment's name, and what that model can take.

use std::borrow::Cow;

/// Deployment names that are models' names, and the version that the model reports itself as.
const VERSIONS: [(&str, &str); 20] = [
    ("gpt-35-turbo", "gpt-35-turbo-0125"),
    ("gpt-35-turbo-instruct", "gpt-35-turbo-instruct"),
    ("gpt-4", "gpt-4-0613"),
    ("gpt-4-turbo", "gpt-4-turbo-2024-04-09"),
    ("gpt-4.1", "gpt-4.1-2025-04-14"),
    ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
    ("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14"),
    ("gpt-4o", "gpt-4o-2024-11-20"),
    ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
    ("gpt-5", "gpt-5-2025-08-07"),
    ("gpt-5-mini", "gpt-5-mini-2025-08-07"),
    ("gpt-5-nano", "gpt-5-nano-2025-08-07"),
    ("o1", "o1-2024-12-17"),
    ("o1-mini", "o1-mini-2024-09-12"),
    ("o3", "o3-2025-04-16"),
    ("o3-mini", "o3-mini-2025-01-31"),
    ("o4-mini", "o4-mini-2025-04-16"),
    ("text-embedding-3-large", "text-embedding-3-large"),
    ("text-embedding-3-small", "text-embedding-3-small"),
    ("text-embedding-ada-002", "text-embedding-ada-002"),
];

/// The name in a reply's `model`: a known model's with its version, any other as it is.
pub(super) fn reported(deployment: &str) -> Cow<'static, str> {
    VERSIONS
        .iter()
        .find(|(name, _)| *name == deployment)
        .map_or_else(|| Cow::Owned(deployment.to_owned()), |(_, version)| Cow::Borrowed(*version))
}

/// The most tokens that a prompt may have.
pub(super) fn context_tokens(model: &str) -> u64 {
    let known = [
        ("text-embedding", 8_192),
        ("gpt-35-turbo-instruct", 4_097),
        ("gpt-35", 16_385),
        ("gpt-4.1", 1_047_576),
        ("gpt-4-turbo", 128_000),
        ("gpt-4o", 128_000),
        ("gpt-4", 8_192),
        ("gpt-5", 272_000),
        ("o1", 200_000),
        ("o3", 200_000),
        ("o4", 200_000),
    ];
    known.iter().find(|(name, _)| model.starts_with(name)).map_or(128_000, |(_, tokens)| *tokens)
}

/// Does it think before it answers, and charge for the thoughts?
pub(super) fn reasons(model: &str) -> bool {
    ["o1", "o3", "o4", "gpt-5"].iter().any(|name| model == *name || model.starts_with(&format!("{name}-")))
}

/// How long its vectors are, unless the request asks for shorter ones.
pub(super) fn dimensions(model: &str) -> usize {
    if model.starts_with("text-embedding-3-large") { 3072 } else { 1536 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_models_report_their_version_and_unknown_names_themselves() {
        assert_eq!(reported("gpt-4o-mini"), "gpt-4o-mini-2024-07-18");
        assert_eq!(reported("gpt-4o"), "gpt-4o-2024-11-20");
        assert_eq!(reported("text-embedding-3-small"), "text-embedding-3-small");
        assert_eq!(reported("my-own"), "my-own");
    }

    #[test]
    fn only_models_that_think_charge_for_thoughts() {
        for (model, expected) in [
            ("o1", true),
            ("o3-mini-2025-01-31", true),
            ("gpt-5-mini", true),
            ("gpt-4o", false),
            ("o1o", false),
        ] {
            assert_eq!(reasons(model), expected, "{model}");
        }
    }
}
