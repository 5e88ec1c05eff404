-- A row of the ledger names the rate that it was posted with; hourly totals are kept beside the rows; what is
-- still to be sent to where logs are kept is marked.
CREATE TABLE rates (
    id    BLOB PRIMARY KEY NOT NULL, -- a digest of the terms
    terms TEXT NOT NULL              -- JSON: a price for each kind, and the currency
) WITHOUT ROWID;

ALTER TABLE usage_events ADD COLUMN audio_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN audio_output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN images INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_events ADD COLUMN rate BLOB; -- NULL: it has no price
-- NULL: not to be shipped, or it was; else until when somebody has it in hand.
ALTER TABLE usage_events ADD COLUMN shipping INTEGER;

CREATE INDEX usage_events_to_ship ON usage_events (time) WHERE shipping IS NOT NULL;

-- Everything that reports group by, and what was used in one hour. An absent text is empty, so that it can
-- be a part of the key.
CREATE TABLE usage_hours (
    hour                INTEGER NOT NULL, -- hours since 1970
    subscription_id     TEXT NOT NULL,
    product             TEXT NOT NULL,
    cost_center         TEXT NOT NULL,
    deployment          TEXT NOT NULL,
    model               TEXT NOT NULL,
    backend             TEXT NOT NULL,
    is_provisioned      INTEGER NOT NULL,
    rate                BLOB NOT NULL,
    requests            INTEGER NOT NULL,
    used_requests       INTEGER NOT NULL,
    estimated_requests  INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    audio_input_tokens  INTEGER NOT NULL,
    audio_output_tokens INTEGER NOT NULL,
    cache_write_tokens  INTEGER NOT NULL,
    images              INTEGER NOT NULL,
    PRIMARY KEY (hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate)
) WITHOUT ROWID;

-- One row of the ledger as a row of totals. The totals of an hour are the sum of these.
CREATE VIEW usage_units AS
SELECT id, time, time / 3600000 AS hour, subscription_id, product, COALESCE(cost_center, '') AS cost_center,
    deployment, COALESCE(model, '') AS model, backend, is_provisioned, COALESCE(rate, x'') AS rate,
    1 AS requests, (input_tokens + output_tokens + images > 0) AS used_requests,
    (source = 'estimated') AS estimated_requests, input_tokens, cached_input_tokens, output_tokens,
    reasoning_tokens, audio_input_tokens, audio_output_tokens, cache_write_tokens, images
FROM usage_events;

INSERT INTO usage_hours
SELECT hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate,
    SUM(requests), SUM(used_requests), SUM(estimated_requests), SUM(input_tokens), SUM(cached_input_tokens),
    SUM(output_tokens), SUM(reasoning_tokens), SUM(audio_input_tokens), SUM(audio_output_tokens),
    SUM(cache_write_tokens), SUM(images)
FROM usage_units
GROUP BY hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate;

-- In the statement that posts the row, and so in its transaction.
CREATE TRIGGER usage_is_added_up AFTER INSERT ON usage_events
BEGIN
    INSERT INTO usage_hours
    VALUES (NEW.time / 3600000, NEW.subscription_id, NEW.product, COALESCE(NEW.cost_center, ''), NEW.deployment,
        COALESCE(NEW.model, ''), NEW.backend, NEW.is_provisioned, COALESCE(NEW.rate, x''), 1,
        NEW.input_tokens + NEW.output_tokens + NEW.images > 0, NEW.source = 'estimated', NEW.input_tokens,
        NEW.cached_input_tokens, NEW.output_tokens, NEW.reasoning_tokens, NEW.audio_input_tokens,
        NEW.audio_output_tokens, NEW.cache_write_tokens, NEW.images)
    ON CONFLICT DO UPDATE SET
        requests = requests + 1,
        used_requests = used_requests + excluded.used_requests,
        estimated_requests = estimated_requests + excluded.estimated_requests,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        audio_input_tokens = audio_input_tokens + excluded.audio_input_tokens,
        audio_output_tokens = audio_output_tokens + excluded.audio_output_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        images = images + excluded.images;
END;

CREATE INDEX dead_letters_by_time ON dead_letters (received_at, id);
