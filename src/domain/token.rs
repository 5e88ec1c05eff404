//! Why a token proves nothing: told to whoever brought it, since nobody else can mend it.
//!
//! Never says which audiences, tenants or subscriptions there are.

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("this gateway takes no Entra tokens: its configuration has no `callers.entra`")]
    NotTaken,
    #[error("it is longer than 16 KiB")]
    TooLong,
    #[error("it is not a token that can be read")]
    Malformed,
    #[error("it is not signed with RS256, as Entra's are")]
    Algorithm,
    #[error("it has no `{0}`")]
    Missing(&'static str),
    #[error("its tenant may not call here")]
    Tenant,
    #[error("its issuer is not Entra for its tenant and version")]
    Issuer,
    #[error("it is for another audience: ask for a token for this gateway's own app registration")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("it names a signing key that Entra does not publish for its tenant")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error(
        "it is genuine, and neither its application nor its user, groups or app roles are bound to a \
         subscription"
    )]
    NotBound,
    #[error(
        "it is genuine, and nothing that it names is bound to a subscription; it names no groups, as there are too \
         many for a token: an app role can be bound instead"
    )]
    GroupsLeftOut,
    #[error("it is genuine, and the subscription that it is bound to is unknown, suspended or expired")]
    Subscription,
}

/// Whether a credential has the form of a signed token: three parts with dots between them.
pub fn looks_like_one(credential: &str) -> bool {
    credential.bytes().filter(|byte| *byte == b'.').count() == 2
}
