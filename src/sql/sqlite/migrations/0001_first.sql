-- What the gateway keeps about itself.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- Keys are never stored: only a keyed hash of each, and its last four characters.
CREATE TABLE subscriptions (
    id             TEXT PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL,
    product        TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('active', 'suspended')),
    owner          TEXT,
    cost_center    TEXT,
    limits         TEXT NOT NULL,
    created_at     INTEGER NOT NULL, -- milliseconds since 1970, as every time here
    expires_at     INTEGER,
    primary_hash   BLOB NOT NULL UNIQUE,
    secondary_hash BLOB NOT NULL UNIQUE,
    primary_hint   TEXT NOT NULL,
    secondary_hint TEXT NOT NULL
);

-- Makes a repeated request to issue one the same request.
CREATE TABLE idempotency_keys (
    key             BLOB PRIMARY KEY NOT NULL, -- digests, both
    request         BLOB NOT NULL,
    subscription_id TEXT NOT NULL,
    used_at         INTEGER NOT NULL
) WITHOUT ROWID;

-- One row an event: its id makes it count once however often it is delivered.
CREATE TABLE usage_events (
    id                  BLOB PRIMARY KEY NOT NULL,
    time                INTEGER NOT NULL,
    subscription_id     TEXT NOT NULL,
    product             TEXT NOT NULL,
    cost_center         TEXT,
    end_user            TEXT,
    operation           TEXT NOT NULL,
    deployment          TEXT NOT NULL,
    model               TEXT,
    api_version         TEXT,
    backend             TEXT NOT NULL,
    region              TEXT,
    attempts            INTEGER NOT NULL,
    status              INTEGER NOT NULL,
    stream              INTEGER NOT NULL,
    outcome             TEXT NOT NULL,
    source              TEXT NOT NULL,
    input_tokens        INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    duration_ms         INTEGER NOT NULL,
    first_byte_ms       INTEGER,
    is_provisioned      INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX usage_events_by_time ON usage_events (time);

-- What was delivered and could not be read, until somebody looks at it.
CREATE TABLE dead_letters (
    id          BLOB PRIMARY KEY NOT NULL, -- a digest of the message
    received_at INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    message     TEXT NOT NULL
) WITHOUT ROWID;
