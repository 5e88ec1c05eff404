-- What the gateway keeps about itself.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);

-- Keys are never stored: only a keyed hash of each, and its last four characters. Texts sort by their bytes, so
-- that a page of a list follows the other wherever the server stands.
CREATE TABLE subscriptions (
    id             TEXT COLLATE "C" PRIMARY KEY,
    name           TEXT NOT NULL,
    product        TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'suspended', 'ended')),
    owner          TEXT COLLATE "C",
    cost_center    TEXT,
    limits         TEXT NOT NULL, -- JSON, as the tags
    notes          TEXT,
    tags           TEXT NOT NULL,
    created_at     BIGINT NOT NULL, -- milliseconds since 1970, as every time here
    expires_at     BIGINT,
    last_used_at   BIGINT,
    primary_hash   BYTEA NOT NULL UNIQUE,
    secondary_hash BYTEA NOT NULL UNIQUE,
    primary_hint   TEXT NOT NULL,
    secondary_hint TEXT NOT NULL,
    -- The transaction that changed it last, but for its use: see the trigger.
    changed_by     XID8 NOT NULL DEFAULT pg_current_xact_id()
) WITH (fillfactor = 80); -- room on its page for the next `last_used_at`: no index changes with it

-- A page of a filtered list is one walk along one of these.
CREATE INDEX subscriptions_by_product ON subscriptions (product, id);
CREATE INDEX subscriptions_by_owner ON subscriptions (owner, id);
CREATE INDEX subscriptions_by_state ON subscriptions (state, id);
-- What other instances ask for every two seconds.
CREATE INDEX subscriptions_by_change ON subscriptions (changed_by);

-- Whoever changes a subscription, by hand as well: every instance finds it by the transaction's number, and hears
-- of it the moment that it is committed.
CREATE FUNCTION subscription_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_by := pg_current_xact_id();
    PERFORM pg_notify('tollgate_subscriptions', NEW.id);
    RETURN NEW;
END $$;

CREATE TRIGGER subscription_changes
    BEFORE INSERT OR UPDATE OF id, name, product, state, owner, cost_center, limits, notes, tags, expires_at,
        primary_hash, secondary_hash, primary_hint, secondary_hint ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION subscription_changes();

-- Makes a repeated request to issue one the same request.
CREATE TABLE idempotency_keys (
    key             BYTEA PRIMARY KEY, -- digests, both
    request         BYTEA NOT NULL,
    subscription_id TEXT NOT NULL,
    used_at         BIGINT NOT NULL
);

CREATE INDEX idempotency_keys_by_time ON idempotency_keys (used_at);

-- Who changed what, when, from where: never a key, nor its hash.
CREATE TABLE audit (
    id              BYTEA PRIMARY KEY,
    time            BIGINT NOT NULL,
    actor           TEXT NOT NULL, -- JSON, as what was before and after
    address         TEXT,
    action          TEXT NOT NULL,
    subscription_id TEXT COLLATE "C" NOT NULL,
    before_change   TEXT NOT NULL,
    after_change    TEXT NOT NULL
);

CREATE INDEX audit_by_time ON audit (time, id);
CREATE INDEX audit_by_subscription ON audit (subscription_id, time, id);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END $$;

CREATE TRIGGER audit_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
