//! Looks at a server as the doctor does: changes nothing, and says what mends what is wrong.

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::{CONNECT, Trouble, signed_in};
use crate::config::settings::PostgresPlace;
use crate::ports::DatabasePasswords;

/// The first version that has all that is asked of it: `xid8` and its functions.
const OLDEST: i32 = 13;

/// What is in order, in words behind "the database".
///
/// # Errors
/// What is wrong, and what mends it.
pub async fn examine(
    place: &PostgresPlace,
    passwords: Option<&dyn DatabasePasswords>,
) -> Result<String, (String, String)> {
    let failed = |trouble: Trouble| (format!("{place}: {trouble}"), mend(place, &trouble));
    let options = signed_in(place, passwords).await.map_err(failed)?;
    let connected = tokio::time::timeout(CONNECT, options.connect()).await;
    let connected = connected.map_err(|_| Trouble::Silent(CONNECT)).and_then(|made| Ok(made?));
    let mut connection = connected.map_err(failed)?;
    let looked = async {
        let fault = fault(&mut connection, place).await?;
        Ok::<_, sqlx::Error>((fault, is_made(&mut connection).await?))
    };
    let looked = tokio::time::timeout(CONNECT, looked).await.map_err(|_| Trouble::Silent(CONNECT));
    let (fault, is_made) = looked.and_then(|found| Ok(found?)).map_err(failed)?;
    // What it says at the end changes nothing.
    let _ = connection.close().await;
    match fault {
        Some((what, mend)) => Err((format!("{place}: {what}"), mend)),
        None if is_made => Ok(format!("{place} can be used")),
        None => Ok(format!("{place} is empty yet: the first start makes its tables")),
    }
}

async fn is_made(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass('subscriptions') IS NOT NULL").fetch_one(connection).await
}

/// What would keep the gateway from using it, and what mends that.
async fn fault(
    connection: &mut PgConnection,
    place: &PostgresPlace,
) -> Result<Option<(String, String)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::INT / 10000, pg_is_in_recovery(), \
         COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE), \
         COALESCE(has_table_privilege(to_regclass('subscriptions'), 'UPDATE'), TRUE)",
    )
    .fetch_one(connection)
    .await?;
    let user = &place.user;
    let version: i32 = row.try_get(0)?;
    Ok(if version < OLDEST {
        Some((format!("it is PostgreSQL {version}"), format!("use PostgreSQL {OLDEST} or newer")))
    } else if row.try_get(1)? {
        let mend = "name the primary server in TOLLGATE_DATABASE_URL";
        Some(("it is a replica, which takes no changes".to_owned(), mend.to_owned()))
    } else if !row.try_get::<bool, _>(2)? {
        let what = "the role may not make tables in it, which each new version needs";
        let mend = format!("as its administrator: `GRANT USAGE, CREATE ON SCHEMA public TO \"{user}\"`");
        Some((what.to_owned(), mend))
    } else if !row.try_get::<bool, _>(3)? {
        let mend = format!("as its administrator: `REASSIGN OWNED BY \"THE-OTHER-ROLE\" TO \"{user}\"`");
        Some(("its tables are another role's".to_owned(), mend))
    } else {
        None
    })
}

/// By the server's [error codes](https://www.postgresql.org/docs/current/errcodes-appendix.html).
fn mend(place: &PostgresPlace, trouble: &Trouble) -> String {
    let PostgresPlace { host, user, database, .. } = place;
    let Trouble::Sql(error) = trouble else {
        return match trouble {
            Trouble::Password(_) => {
                "give the app an identity, or put a password into TOLLGATE_DATABASE_URL".into()
            }
            _ => reachable(host),
        };
    };
    let code = match error {
        sqlx::Error::Tls(_) => {
            return "name the server as its certificate does, and its authority's file with `?sslrootcert=FILE`, if \
                    that is not a public one"
                .to_owned();
        }
        sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return "the server's certificate is not trusted: name its authority's file with `?sslrootcert=FILE`"
                .to_owned();
        }
        _ => return reachable(host),
    };
    match code.as_str() {
        "28P01" | "28000" if place.takes_token => format!(
            "make the identity a role, as the server's Entra administrator in the database `postgres`: `SELECT * FROM \
             pgaadauth_create_principal('{user}', false, false)`; the role in TOLLGATE_DATABASE_URL must be that name"
        ),
        "28P01" | "28000" => {
            "mend the role and the password in TOLLGATE_DATABASE_URL, or the server's firewall".into()
        }
        "3D000" => format!(
            "make it, as the server's administrator: `CREATE DATABASE \"{database}\" OWNER \"{user}\"`"
        ),
        "42501" => {
            format!("as the server's administrator: `GRANT CONNECT ON DATABASE \"{database}\" TO \"{user}\"`")
        }
        "53300" => "give the server more connections, or the app fewer instances: each takes five".to_owned(),
        _ => reachable(host),
    }
}

fn reachable(host: &str) -> String {
    format!(
        "see that `{host}` runs, and that its firewall or its private endpoint lets the app in: `az postgres \
         flexible-server show --name SERVER --resource-group GROUP --query state`"
    )
}
