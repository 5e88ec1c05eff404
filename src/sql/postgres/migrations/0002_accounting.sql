-- What is paid; rows name it by its digest, and it is never changed.
CREATE TABLE rates (
    id    BYTEA PRIMARY KEY, -- a digest of the terms
    terms TEXT NOT NULL      -- JSON: a price for each kind, and the currency
);

-- One row an event: its id makes it count once however often it is delivered. A month's rows have a table of their
-- own, which can be taken away as a whole; the id is unique in each of them, and the same event has always the same
-- time.
CREATE TABLE usage_events (
    id                  UUID NOT NULL,
    time                BIGINT NOT NULL, -- milliseconds since 1970
    subscription_id     TEXT COLLATE "C" NOT NULL,
    product             TEXT COLLATE "C" NOT NULL,
    cost_center         TEXT COLLATE "C",
    end_user            TEXT,
    operation           TEXT NOT NULL,
    deployment          TEXT COLLATE "C" NOT NULL,
    model               TEXT COLLATE "C",
    api_version         TEXT,
    backend             TEXT COLLATE "C" NOT NULL,
    region              TEXT,
    attempts            BIGINT NOT NULL,
    status              BIGINT NOT NULL,
    stream              BOOLEAN NOT NULL,
    outcome             TEXT NOT NULL,
    source              TEXT NOT NULL,
    input_tokens        BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    output_tokens       BIGINT NOT NULL,
    reasoning_tokens    BIGINT NOT NULL,
    audio_input_tokens  BIGINT NOT NULL,
    audio_output_tokens BIGINT NOT NULL,
    cache_write_tokens  BIGINT NOT NULL,
    images              BIGINT NOT NULL,
    duration_ms         BIGINT NOT NULL,
    first_byte_ms       BIGINT,
    is_provisioned      BOOLEAN NOT NULL,
    rate                BYTEA, -- NULL: it has no price
    shipping            BIGINT -- NULL: not to be shipped, or it was; else until when somebody has it in hand
) PARTITION BY RANGE (time);

CREATE INDEX usage_events_by_time ON usage_events (time);
CREATE INDEX usage_events_to_ship ON usage_events (time) WHERE shipping IS NOT NULL;

-- No event is ever too early or too late to be posted.
CREATE TABLE usage_events_other PARTITION OF usage_events DEFAULT;
CREATE UNIQUE INDEX usage_events_other_once ON usage_events_other (id);

-- Makes the table of a month, with what was posted for it before it was there. May be called by many at once, and
-- again.
CREATE FUNCTION usage_events_month(month DATE) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part    TEXT := 'usage_events_' || to_char(month, 'YYYY_MM');
    first   BIGINT := extract(epoch FROM month)::BIGINT * 1000;
    beyond  BIGINT := extract(epoch FROM month + INTERVAL '1 month')::BIGINT * 1000;
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Whoever posts waits, and so does whoever makes the same table.
    LOCK TABLE usage_events IN SHARE ROW EXCLUSIVE MODE;
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_events INCLUDING DEFAULTS)', part);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id)', part || '_once', part);
    EXECUTE format('WITH moved AS (DELETE FROM usage_events_other WHERE time >= %s AND time < %s RETURNING *) '
        'INSERT INTO %I SELECT * FROM moved', first, beyond, part);
    EXECUTE format('ALTER TABLE usage_events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, first, beyond);
END $$;

-- Everything that reports group by, and what was used in one hour. An absent text is empty, so that it can
-- be a part of the key.
CREATE TABLE usage_hours (
    hour                BIGINT NOT NULL, -- hours since 1970
    subscription_id     TEXT COLLATE "C" NOT NULL,
    product             TEXT COLLATE "C" NOT NULL,
    cost_center         TEXT COLLATE "C" NOT NULL,
    deployment          TEXT COLLATE "C" NOT NULL,
    model               TEXT COLLATE "C" NOT NULL,
    backend             TEXT COLLATE "C" NOT NULL,
    is_provisioned      BOOLEAN NOT NULL,
    rate                BYTEA NOT NULL,
    requests            BIGINT NOT NULL,
    used_requests       BIGINT NOT NULL,
    estimated_requests  BIGINT NOT NULL,
    input_tokens        BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    output_tokens       BIGINT NOT NULL,
    reasoning_tokens    BIGINT NOT NULL,
    audio_input_tokens  BIGINT NOT NULL,
    audio_output_tokens BIGINT NOT NULL,
    cache_write_tokens  BIGINT NOT NULL,
    images              BIGINT NOT NULL,
    PRIMARY KEY (hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate)
) WITH (fillfactor = 70); -- the current hour's rows are counted up all the time: no index changes with it

-- One row of the ledger as a row of totals. The totals of an hour are the sum of these.
CREATE VIEW usage_units AS
SELECT id, time, time / 3600000 AS hour, subscription_id, product, COALESCE(cost_center, '') AS cost_center,
    deployment, COALESCE(model, '') AS model, backend, is_provisioned, COALESCE(rate, ''::BYTEA) AS rate,
    1::BIGINT AS requests, (input_tokens + output_tokens + images > 0)::INT::BIGINT AS used_requests,
    (source = 'estimated')::INT::BIGINT AS estimated_requests, input_tokens, cached_input_tokens, output_tokens,
    reasoning_tokens, audio_input_tokens, audio_output_tokens, cache_write_tokens, images
FROM usage_events;

-- What was delivered and could not be read, until somebody looks at it.
CREATE TABLE dead_letters (
    id          BYTEA PRIMARY KEY, -- a digest of the message
    received_at BIGINT NOT NULL,
    reason      TEXT NOT NULL,
    message     TEXT NOT NULL
);

CREATE INDEX dead_letters_by_time ON dead_letters (received_at, id);
