//! The setting that says where subscriptions and the ledger are kept.
//!
//! Never tells a password, nor the part of a URL in which one may stand.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::{Identity, Source, UNRESOLVED};
use crate::config::Fault;
use crate::config::catalog::is_loopback;

const NAME: &str = "TOLLGATE_DATABASE_URL";
const DEFAULT_PORT: u16 = 5432;

/// Where the database is.
#[derive(Clone, Debug)]
pub enum DatabasePlace {
    /// A SQLite file.
    Sqlite(PathBuf),
    Postgres(PostgresPlace),
}

/// A database of a PostgreSQL server, and how it is signed in to.
#[derive(Clone, Debug)]
pub struct PostgresPlace {
    pub host: String,
    pub port: u16,
    /// The role; for Entra, the name under which the identity was made one.
    pub user: String,
    pub database: String,
    pub password: Option<SecretString>,
    pub tls: Tls,
    /// A PEM file with the authority that the server's certificate is from, beside Mozilla's.
    pub root_certificate: Option<PathBuf>,
    /// It is signed in to with an Entra token.
    pub takes_token: bool,
}

/// What is asked of the connection, in the words of `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Disable,
    /// As the server likes.
    Prefer,
    /// Encrypted, whoever the server is.
    Require,
    /// With a certificate of a known authority.
    VerifyCa,
    /// And for this host.
    VerifyFull,
}

impl Tls {
    const ALL: [(&'static str, Self); 5] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    /// The server is known for who it is.
    fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// For an operator: without the password.
impl fmt::Display for PostgresPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, .. } = self;
        write!(f, "{database} on {host}:{port} as {user}")
    }
}

pub(super) fn place(
    source: &dyn Source,
    data_dir: &Path,
    identity: &Identity,
    faults: &mut Vec<Fault>,
) -> DatabasePlace {
    let Some(text) = source.get(NAME) else { return DatabasePlace::Sqlite(data_dir.join("tollgate.db")) };
    let nowhere = DatabasePlace::Sqlite(PathBuf::new());
    if let Some(path) = text.strip_prefix("sqlite://").filter(|path| !path.is_empty()) {
        if path.contains('?') {
            faults.push(Fault::new(NAME, "takes no options: sqlite://PATH ends with the path"));
        }
        return DatabasePlace::Sqlite(path.into());
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let mut said = Vec::new();
        let place = postgres(&text, identity, &mut said);
        faults.extend(said.into_iter().map(|message| Fault::new(NAME, message)));
        return place.map_or(nowhere, DatabasePlace::Postgres);
    }
    // What is unresolved has its fault already.
    if !text.starts_with(UNRESOLVED) {
        faults.push(Fault::new(NAME, "must be sqlite://PATH or postgres://ROLE@HOST/DATABASE"));
    }
    nowhere
}

fn postgres(text: &str, identity: &Identity, faults: &mut Vec<String>) -> Option<PostgresPlace> {
    let Some((url, host)) = Url::parse(text).ok().and_then(|url| {
        let host = url.host_str().filter(|host| !host.is_empty())?.to_owned();
        Some((url, host))
    }) else {
        faults.push("is no URL: postgres://ROLE[:PASSWORD]@HOST[:PORT]/DATABASE, %-encoded".to_owned());
        return None;
    };
    let mut decoded = |what: &str, text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.contains('\0') => text.into_owned(),
        _ => {
            faults.push(format!("its {what} is not UTF-8"));
            String::new()
        }
    };
    let user = decoded("role", url.username());
    let password = url.password().filter(|text| !text.is_empty()).map(|text| decoded("password", text));
    let database = decoded("database", url.path().trim_start_matches('/'));
    if user.is_empty() {
        faults.push("names no role: postgres://ROLE@HOST/DATABASE".to_owned());
    }
    if database.is_empty() {
        faults.push("names no database: postgres://ROLE@HOST/DATABASE".to_owned());
    }
    let is_local = is_loopback(&host);
    let (tls, root_certificate) = options(&url, is_local, faults);
    // On this machine a server may trust whoever comes, and a developer's own token is not for it.
    let takes_token = password.is_none() && !(is_local && matches!(identity, Identity::Developer));
    if takes_token && !is_local && !tls.verifies() {
        faults.push(
            "has no password, so that an Entra token is sent: only with sslmode=verify-full or verify-ca"
                .into(),
        );
    }
    Some(PostgresPlace {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(DEFAULT_PORT),
        user,
        database,
        password: password.map(SecretString::from),
        tls,
        root_certificate,
        takes_token,
    })
}

fn options(url: &Url, is_local: bool, faults: &mut Vec<String>) -> (Tls, Option<PathBuf>) {
    let mut tls = if is_local { Tls::Prefer } else { Tls::VerifyFull };
    let mut root_certificate = None;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "sslmode" => match Tls::ALL.into_iter().find(|(word, _)| *word == value) {
                Some((_, asked)) => tls = asked,
                None => faults.push("its sslmode must be require, verify-ca or verify-full".to_owned()),
            },
            "sslrootcert" => root_certificate = Some(PathBuf::from(value.as_ref())),
            // Names are no secret: a value may be one.
            other => faults.push(format!(
                "has the option `{}`, which is not known: there are sslmode and sslrootcert",
                other.chars().filter(|c| !c.is_control()).take(40).collect::<String>()
            )),
        }
    }
    if !is_local && matches!(tls, Tls::Disable | Tls::Prefer) {
        faults.push(
            "its sslmode must be require, verify-ca or verify-full: only this machine is spoken to in the clear"
                .to_owned(),
        );
    }
    (tls, root_certificate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use secrecy::ExposeSecret as _;

    use super::super::Settings;
    use super::*;

    fn read(url: &str) -> Result<Settings, String> {
        let map = BTreeMap::from([(NAME, url.to_owned())]);
        Settings::read(&map).map_err(|faults| faults.to_string())
    }

    fn postgres(url: &str) -> PostgresPlace {
        match read(url).unwrap().database {
            DatabasePlace::Postgres(place) => place,
            DatabasePlace::Sqlite(_) => panic!("{url}"),
        }
    }

    #[test]
    fn a_server_elsewhere_is_known_for_who_it_is_unless_the_url_says_otherwise() {
        let azure = postgres("postgres://app%40contoso.com@pg.postgres.database.azure.com/tollgate");
        assert_eq!(azure.to_string(), "tollgate on pg.postgres.database.azure.com:5432 as app@contoso.com");
        assert_eq!((azure.tls, azure.takes_token), (Tls::VerifyFull, true));
        let told = postgres("postgresql://u:p%2F@db:6432/t?sslmode=verify-ca&sslrootcert=/etc/ca.pem");
        assert_eq!((told.tls, told.takes_token, told.port), (Tls::VerifyCa, false, 6432));
        assert_eq!(told.root_certificate.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert_eq!(told.password.as_ref().unwrap().expose_secret(), "p/");
        assert!(!format!("{told:?} {told}").contains("p/"), "{told:?}");
        assert_eq!(postgres("postgres://u:p@db/t?sslmode=require").tls, Tls::Require);
        let local = postgres("postgres://u@[::1]/t");
        assert_eq!((local.host.as_str(), local.tls, local.takes_token), ("::1", Tls::Prefer, false));
    }

    #[test]
    fn a_faulty_url_is_refused_without_telling_it() {
        for (url, fault) in [
            ("postgres://hush:hush@/", "no URL"),
            ("postgres://hush:hush@db", "names no database"),
            ("postgres://db/t", "names no role"),
            ("postgres://hush:hush@db/t?sslmode=disable", "sslmode"),
            ("postgres://hush:hush@db/t?sslmode=hush", "sslmode"),
            ("postgres://hush:hush@db/t?target=hush", "`target`"),
            ("postgres://hush:%ff@db/t", "password is not UTF-8"),
            ("postgres://hush@db/t?sslmode=require", "Entra token"),
            ("mysql://hush", "must be sqlite://PATH or postgres://"),
        ] {
            let told = read(url).unwrap_err();
            assert!(told.contains(fault) && !told.contains("hush"), "{url}: {told}");
        }
    }
}
