//! What is worth another attempt, and how often.

/// A transaction that stood in another's way and was undone for it: the other has gone on meanwhile.
pub(super) async fn once_more<T, L>(attempt: impl Fn() -> L) -> Result<T, sqlx::Error>
where
    L: Future<Output = Result<T, sqlx::Error>>,
{
    match attempt().await {
        // serialization_failure, deadlock_detected.
        Err(error) if has_code(&error, &["40001", "40P01"]) => attempt().await,
        outcome => outcome,
    }
}

/// The connection was cut, or the server ends it: `admin_shutdown` and `crash_shutdown` of
/// [its errors](https://www.postgresql.org/docs/current/errcodes-appendix.html).
/// One that was waited for in vain has had its time.
pub(super) fn is_cut(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() != std::io::ErrorKind::TimedOut)
        || has_code(error, &["57P01", "57P02"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}
