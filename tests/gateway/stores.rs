//! What any store of subscriptions promises, and the stores that keep it.

use std::collections::BTreeMap;

use tollgate::sql::sqlite::Database;

pub(crate) mod contract;
pub(crate) mod ledger;

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("a.db")).await.unwrap();
    contract::keeps_the_contract(&database).await;
}

#[tokio::test]
async fn the_ledger_in_sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("a.db")).await.unwrap();
    ledger::keeps_the_contract(&database).await;
}

#[tokio::test]
async fn sqlite_never_changes_nor_deletes_an_entry_of_the_audit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let database = Database::open(&file).await.unwrap();
    contract::keeps_the_contract(&database).await;
    let mut connection = connect(&file).await;
    for statement in ["UPDATE audit SET action = 'x'", "DELETE FROM audit"] {
        let refused = sqlx::query(statement).execute(&mut connection).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{refused}");
    }
}

#[tokio::test]
async fn a_sqlite_file_of_the_first_version_moves_on_with_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    // As the first version made it, a subscription and its idempotency key in it.
    let all = sqlx::migrate::Migrator::new(std::path::Path::new("src/sql/sqlite/migrations")).await.unwrap();
    let first = sqlx::migrate::Migrator {
        migrations: all.migrations.iter().filter(|one| one.version == 1).cloned().collect(),
        ..sqlx::migrate::Migrator::DEFAULT
    };
    let mut connection = connect(&file).await;
    first.run(&mut connection).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO subscriptions VALUES ('sub-old', 'old', 'standard', 'suspended', 'me', '47', \
         '{\"requests_per_minute\":5}', 1000, 2000, x'01', x'02', 'aaaa', 'bbbb');
         INSERT INTO idempotency_keys VALUES (x'03', x'04', 'sub-old', 1000);",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    drop(connection);
    // However many start at once.
    let opened = futures_util::future::join_all((0..8).map(|_| Database::open(&file))).await;
    let databases: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let id = tollgate::domain::ids::Name::new("sub-old").unwrap();
    for database in &databases {
        let old = tollgate::ports::Subscriptions::find(database, &id).await.unwrap().unwrap();
        assert_eq!(
            (old.name.as_str(), old.owner.as_deref(), old.expires_at),
            ("old", Some("me"), Some(tollgate::domain::units::UnixMillis(2000)))
        );
        assert_eq!((old.state.word(), old.limits.requests_per_minute), ("suspended", Some(5)));
        assert_eq!((old.notes, old.tags, old.last_used_at), (None, BTreeMap::new(), None));
    }
}

async fn connect(file: &std::path::Path) -> sqlx::SqliteConnection {
    use sqlx::ConnectOptions as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    options.connect().await.unwrap()
}
