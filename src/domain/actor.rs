//! Who did something to the gateway: for the audit, for what people keep for themselves, for usage events.
//!
//! Never holds a credential: a token is gone once it has been verified, and an admin key has no name.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The app role that opens management.
pub const ADMIN_ROLE: &str = "Tollgate.Admin";

/// Somebody who manages, as they proved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// Whoever has the admin key.
    AdminKey,
    /// Whoever may run the program with the gateway's own settings.
    CommandLine,
    /// A person who signed in with Entra.
    Person {
        tenant_id: String,
        /// `oid`: theirs in that tenant, for good.
        object_id: String,
        /// What they signed in to.
        client_id: String,
    },
    /// An application with a token of its own.
    Application {
        tenant_id: String,
        client_id: String,
        /// `oid`: its service principal's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        object_id: Option<String>,
    },
}

/// Such as `admin-key`, `person:OBJECT-ID` or `application:CLIENT-ID`: short, and the same for the same one.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdminKey => f.write_str("admin-key"),
            Self::CommandLine => f.write_str("command-line"),
            Self::Person { object_id, .. } => write!(f, "person:{object_id}"),
            Self::Application { client_id, .. } => write!(f, "application:{client_id}"),
        }
    }
}

/// Whom a verified token speaks for. Ids are in lower case, as Entra writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `tid`.
    pub tenant_id: String,
    /// `azp`, or `appid` in tokens of version 1: the application that got the token.
    pub client_id: String,
    /// `oid`: the person's, or the service principal's. Tokens for people always have one.
    pub object_id: Option<String>,
    /// The application acts for a person who signed in (`scp`), and not for itself.
    pub is_person: bool,
    /// Object ids.
    pub groups: Vec<String>,
    /// There are more groups than a token holds, and so it names none.
    pub leaves_groups_out: bool,
    /// App roles of the gateway's own registration, as they are written there.
    pub roles: Vec<String>,
}

impl Identity {
    /// The person that it speaks for; `None` for an application of its own.
    pub fn person(&self) -> Option<&str> {
        self.object_id.as_deref().filter(|_| self.is_person)
    }

    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == ADMIN_ROLE)
    }

    /// The same, as somebody who manages.
    pub fn actor(&self) -> Actor {
        let (tenant_id, client_id) = (self.tenant_id.clone(), self.client_id.clone());
        match self.person() {
            Some(person) => Actor::Person { tenant_id, object_id: person.to_owned(), client_id },
            None => Actor::Application { tenant_id, client_id, object_id: self.object_id.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_and_an_application_are_told_apart_by_what_the_token_is_for() {
        let mut identity = Identity {
            tenant_id: "t".into(),
            client_id: "c".into(),
            object_id: Some("o".into()),
            is_person: true,
            groups: vec![],
            leaves_groups_out: false,
            roles: vec![],
        };
        assert_eq!((identity.person(), identity.actor().to_string()), (Some("o"), "person:o".to_owned()));
        identity.is_person = false;
        assert_eq!((identity.person(), identity.actor().to_string()), (None, "application:c".to_owned()));
    }

    #[test]
    fn only_the_very_role_makes_an_admin() {
        let with = |roles: &[&str]| Identity {
            tenant_id: "t".into(),
            client_id: "c".into(),
            object_id: None,
            is_person: false,
            groups: vec![ADMIN_ROLE.to_owned()],
            leaves_groups_out: false,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        };
        assert!(with(&["Other", ADMIN_ROLE]).is_admin());
        for roles in [&[][..], &["tollgate.admin"], &["Tollgate.Admin "], &["Tollgate.Administrator"]] {
            assert!(!with(roles).is_admin(), "{roles:?}");
        }
    }
}
