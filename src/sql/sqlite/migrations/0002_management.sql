-- Subscriptions can end, have notes and tags, and know when they were used last. SQLite cannot change a
-- table's checks: it is made anew.
CREATE TABLE subscriptions_anew (
    id             TEXT PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL,
    product        TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'ended')),
    owner          TEXT,
    cost_center    TEXT,
    limits         TEXT NOT NULL, -- JSON, as the tags
    notes          TEXT,
    tags           TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    last_used_at   INTEGER,
    primary_hash   BLOB NOT NULL UNIQUE,
    secondary_hash BLOB NOT NULL UNIQUE,
    primary_hint   TEXT NOT NULL,
    secondary_hint TEXT NOT NULL
);

INSERT INTO subscriptions_anew (id, name, product, state, owner, cost_center, limits, notes, tags, created_at,
    expires_at, last_used_at, primary_hash, secondary_hash, primary_hint, secondary_hint)
SELECT id, name, product, state, owner, cost_center, limits, NULL, '{}', created_at,
    expires_at, NULL, primary_hash, secondary_hash, primary_hint, secondary_hint
FROM subscriptions;

DROP TABLE subscriptions;
ALTER TABLE subscriptions_anew RENAME TO subscriptions;

-- A page of a filtered list is one walk along one of these.
CREATE INDEX subscriptions_by_product ON subscriptions (product, id);
CREATE INDEX subscriptions_by_owner ON subscriptions (owner, id);
CREATE INDEX subscriptions_by_state ON subscriptions (state, id);

-- Who changed what, when, from where: never a key, nor its hash.
CREATE TABLE audit (
    id              BLOB PRIMARY KEY NOT NULL,
    time            INTEGER NOT NULL,
    actor           TEXT NOT NULL, -- JSON, as what was before and after
    address         TEXT,
    action          TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    before_change   TEXT NOT NULL,
    after_change    TEXT NOT NULL
);

CREATE INDEX audit_by_time ON audit (time, id);
CREATE INDEX audit_by_subscription ON audit (subscription_id, time, id);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
