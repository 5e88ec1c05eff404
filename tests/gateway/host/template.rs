//! Route templates: what they match, and whether two of them can match one path.

/// A route of a function, such as `openai/{*path}`.
#[derive(Clone, Debug)]
pub(super) struct Template {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    /// Lower-cased: the host does not tell cases apart.
    Literal(String),
    One,
    Rest,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim_matches('/');
        let mut segments = Vec::new();
        for part in trimmed.split('/').filter(|part| !part.is_empty()) {
            if segments.last() == Some(&Segment::Rest) {
                return Err(format!("`{text}`: nothing may follow a catch-all"));
            }
            segments.push(match part.strip_prefix('{').map(|inner| inner.strip_suffix('}')) {
                Some(Some(name)) if name.starts_with('*') => Segment::Rest,
                Some(Some(name)) if !name.is_empty() => Segment::One,
                Some(_) => return Err(format!("`{text}`: `{part}` is not a parameter")),
                None if part.contains(['{', '}', '*', '?']) => {
                    return Err(format!("`{text}`: `{part}` is more than this host reads"));
                }
                None => Segment::Literal(part.to_ascii_lowercase()),
            });
        }
        Ok(Self { text: trimmed.to_ascii_lowercase(), segments })
    }

    /// Trimmed and lower-cased, as the host compares routes.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether this path, without its query, is the template's. A catch-all takes an empty rest.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        for segment in &self.segments {
            match (segment, parts.next()) {
                (Segment::Rest, _) => return true,
                (Segment::One, Some(_)) => {}
                (Segment::Literal(word), Some(part)) if decode(part) == *word => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// Whether some path is matched by both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.segments.iter(), other.segments.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(Segment::Rest), _) | (_, Some(Segment::Rest)) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Segment::Literal(one)), Some(Segment::Literal(two))) if one != two => return false,
                _ => {}
            }
        }
    }
}

/// As the host's server decodes a path before it is routed: all but an encoded slash.
fn decode(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%')
            .then(|| tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .filter(|byte| *byte != b'/');
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).to_ascii_lowercase()
}

#[test]
fn a_template_matches_as_the_host_matches() {
    for (template, path, matched) in [
        ("openai/{*path}", "/openai", true),
        ("openai/{*path}", "/openai/", true),
        ("openai/{*path}", "/OpenAI/deployments/x%2Fy/chat", true),
        ("openai/{*path}", "/%6fpenai/x", true),
        ("openai/{*path}", "/openai2/x", false),
        ("openai/{*path}", "/openai%2Fx", false),
        ("healthz", "/healthz", true),
        ("healthz", "/healthz/x", false),
        ("a/{id}/b", "/a/1/b", true),
        ("a/{id}/b", "/a/b", false),
    ] {
        assert_eq!(Template::parse(template).unwrap().matches(path), matched, "{template} {path}");
    }
}

#[test]
fn templates_that_share_a_path_overlap() {
    for (one, two, shared) in [
        ("openai/{*path}", "openai", true),
        ("openai/{*path}", "openai.json", false),
        ("{*path}", "token-accounting", true),
        ("a/{id}", "a/b", true),
        ("a/{id}", "a", false),
    ] {
        let (one, two) = (Template::parse(one).unwrap(), Template::parse(two).unwrap());
        assert_eq!(one.overlaps(&two), shared, "{one:?} {two:?}");
        assert_eq!(two.overlaps(&one), shared, "{two:?} {one:?}");
    }
}
