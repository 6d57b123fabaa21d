-- How many codes and passwords a recipient gets in an hour, and what wrong ones lead to. A row of `quota` counts for
-- one of these, each under a key of 16 or 32 bytes:
--   a door     what was typed, whoever has it (HMAC of slug and address; an empty one for the slug alone)
--   a person   over all their doors, whatever the code is for; nobody's is another HMAC of what was typed
--   a lane     of a person: one for each known device, `devices` for all of them, `contacts` for addresses they claim
-- A stranger is told what the door has left and nothing else. So the answers tell neither who is behind a door nor
-- which doors are one person's: what the person has used up is withheld (a decoy), not refused. A known device spends
-- of its lanes alone, and whoever is told everything (p_door NULL) of the person.
-- Locks are taken in this order: lanes, the door, the person.

-- Whether one more code fits: an hour and a minute are not full, both ends counted, and no lock is in force. Sends stand
-- in their order, so the one that would have to leave tells. The planner puts this expression in the place of the call.
CREATE OR REPLACE FUNCTION fn.has_room(
    p_locked_until timestamptz, p_sends timestamptz[], p_at timestamptz, p_hourly integer, p_per_minute integer
) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(p_locked_until <= p_at, true) AND p_hourly > 0 AND p_per_minute > 0
       AND coalesce(p_sends[cardinality(p_sends) + 1 - p_hourly] < p_at - interval '1 hour', true)
       AND coalesce(p_sends[cardinality(p_sends) + 1 - p_per_minute] < p_at - interval '1 minute', true)
$$;

CREATE OR REPLACE FUNCTION fn.may_try_password(q quota, p_at timestamptz, p_hourly integer)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN coalesce(q.locked_until <= p_at, true) AND cardinality(fn.recent(q.password_tries, p_at)) < p_hourly;
END $$;

-- Spends one send of a row, or says when the next one is free. The row lock of the upsert makes parallel calls wait for
-- each other; the condition is checked on the newest row, so exactly the limit is admitted. A door's row names in
-- p_person whose it was last.
CREATE OR REPLACE FUNCTION fn.spend_quota(
    p_now timestamptz, p_tenant uuid, p_key bytea, p_lane text, p_person bytea, p_hourly integer, p_per_minute integer,
    OUT spent_at timestamptz, OUT retry_at timestamptz, OUT used integer, OUT wrong_today integer, OUT refusal text
) LANGUAGE plpgsql AS $$
DECLARE
    v_row  quota;
    v_seen timestamptz;
BEGIN
    INSERT INTO quota AS q (tenant_id, recipient_key, lane, person_key, sends, seen_at)
    VALUES (p_tenant, p_key, p_lane, p_person, ARRAY[p_now], p_now)
    ON CONFLICT (tenant_id, recipient_key, lane) DO UPDATE
        SET sends = fn.recent(q.sends, greatest(p_now, q.seen_at)) || greatest(p_now, q.seen_at),
            seen_at = greatest(p_now, q.seen_at), person_key = excluded.person_key
        WHERE fn.has_room(q.locked_until, q.sends, greatest(p_now, q.seen_at), p_hourly, p_per_minute)
    RETURNING q.seen_at, cardinality(q.sends), cardinality(fn.recent(q.wrong, q.seen_at, '1 day'))
    INTO spent_at, used, wrong_today;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO v_row FROM quota
    WHERE tenant_id = p_tenant AND recipient_key = p_key AND lane = p_lane;
    v_seen := greatest(p_now, v_row.seen_at);
    used := cardinality(fn.recent(v_row.sends, v_seen));
    refusal := CASE WHEN v_row.locked_until > p_now THEN 'locked' ELSE 'hourly' END;
    -- The send whose leaving makes room, in whichever window is full; and the end of a lock.
    retry_at := greatest(
        (SELECT s + interval '1 hour' FROM unnest(fn.recent(v_row.sends, v_seen)) AS s
          ORDER BY s DESC OFFSET p_hourly - 1 LIMIT 1),
        (SELECT s + interval '1 minute' FROM unnest(fn.recent(v_row.sends, v_seen, '1 minute')) AS s
          ORDER BY s DESC OFFSET p_per_minute - 1 LIMIT 1),
        v_row.locked_until
    );
END $$;

-- Spends one send of a person where nobody is told whether there was room. Only what is really sent counts (p_real), or
-- asking for decoys would use it up without a trace. The row is written in any case, so that it takes the same time.
CREATE OR REPLACE FUNCTION fn.spend_unseen(
    p_now timestamptz, p_tenant uuid, p_person bytea, p_hourly integer, p_per_minute integer, p_real boolean,
    OUT spent_at timestamptz, OUT used integer, OUT withheld text
) LANGUAGE plpgsql AS $$
DECLARE
    v_admitted boolean;
    v_locked   boolean;
BEGIN
    INSERT INTO quota AS q (tenant_id, recipient_key, lane, sends, seen_at)
    VALUES (p_tenant, p_person, '', CASE WHEN p_real THEN ARRAY[p_now] ELSE '{}' END, p_now)
    ON CONFLICT (tenant_id, recipient_key, lane) DO UPDATE
        SET admitted = fn.has_room(q.locked_until, q.sends, greatest(p_now, q.seen_at), p_hourly, p_per_minute),
            sends = fn.recent(q.sends, greatest(p_now, q.seen_at))
                || CASE WHEN fn.has_room(q.locked_until, q.sends, greatest(p_now, q.seen_at), p_hourly, p_per_minute) AND p_real
                        THEN ARRAY[greatest(p_now, q.seen_at)] ELSE '{}' END,
            seen_at = greatest(p_now, q.seen_at)
    RETURNING q.seen_at, cardinality(q.sends), q.admitted, coalesce(q.locked_until > q.seen_at, false)
    INTO spent_at, used, v_admitted, v_locked;
    withheld := CASE WHEN v_admitted THEN NULL WHEN v_locked THEN 'recipient-locked' ELSE 'recipient-limited' END;
END $$;

-- What was just spent of a lane, whose row the caller holds, is not.
CREATE OR REPLACE FUNCTION fn.take_back_send(p_tenant uuid, p_person bytea, p_lane text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE quota SET sends = sends[:cardinality(sends) - 1]
    WHERE tenant_id = p_tenant AND recipient_key = p_person AND lane = p_lane;
END $$;

-- How often six digits were guessed at a person today, and may yet be at what was sent in the last hour, in all lanes.
CREATE OR REPLACE FUNCTION fn.exposed(p_now timestamptz, p_tenant uuid, p_person bytea, p_attempts integer)
RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(sum(cardinality(fn.recent(q.short_wrong, p_now, '1 day'))
                        + p_attempts * cardinality(fn.recent(q.sends, p_now))), 0)
    FROM quota q
    WHERE q.tenant_id = p_tenant AND q.recipient_key = p_person AND q.lane IN ('', 'devices');
END $$;

-- Spends one code, of everything that counts for it or of nothing. `refusal` and `retry_at` are for the caller's eyes;
-- `withheld` is not: accept, and send nothing. p_real: there is something to send. All known devices of a person
-- together have twice what each has.
-- `digits`: at least p_digits, and 8 where six are too few: for a stranger by what was guessed at the door, for a known
-- device by what was guessed at the person. At most 60 guesses a day are at six digits, whatever the lanes and doors:
-- with those at eight, 3,600 where an hour has 10 codes, a chance below 1e-4. Where a door says six all the same,
-- nothing is sent. Whoever has set more than 10 an hour, which production refuses, has given that up.
CREATE OR REPLACE FUNCTION fn.spend_code(
    p_now timestamptz, p_tenant uuid, p_person bytea, p_door bytea, p_device uuid, p_hourly integer,
    p_per_minute integer, p_attempts integer, p_digits integer, p_real boolean,
    OUT spent_at timestamptz, OUT retry_at timestamptz, OUT used integer, OUT refusal text, OUT withheld text,
    OUT digits integer
) LANGUAGE plpgsql AS $$
DECLARE
    s       record;
    v_wrong integer;
BEGIN
    IF p_device IS NOT NULL THEN
        s := fn.spend_quota(p_now, p_tenant, p_person, 'devices', NULL, 2 * p_hourly, 2 * p_hourly);
        IF s.refusal IS NULL THEN
            s := fn.spend_quota(s.spent_at, p_tenant, p_person, p_device::text, NULL, p_hourly, p_per_minute);
            IF s.refusal IS NOT NULL THEN
                PERFORM fn.take_back_send(p_tenant, p_person, 'devices');
            END IF;
        END IF;
    ELSE
        s := fn.spend_quota(p_now, p_tenant, coalesce(p_door, p_person), '', CASE WHEN p_door IS NOT NULL THEN p_person END,
                            p_hourly, p_per_minute);
        v_wrong := s.wrong_today;
    END IF;
    spent_at := s.spent_at;
    retry_at := s.retry_at;
    used := s.used;
    refusal := s.refusal;
    IF refusal IS NOT NULL THEN
        RETURN;
    END IF;
    IF p_device IS NOT NULL THEN
        -- Held, so that a stranger's code of the same moment is not overlooked below.
        SELECT cardinality(fn.recent(q.wrong, spent_at, '1 day')) INTO v_wrong FROM quota q
        WHERE q.tenant_id = p_tenant AND q.recipient_key = p_person AND q.lane = '' FOR NO KEY UPDATE;
    ELSIF p_door IS NOT NULL THEN
        s := fn.spend_unseen(spent_at, p_tenant, p_person, p_hourly, p_per_minute, p_real);
        spent_at := s.spent_at;
        used := s.used;
        withheld := s.withheld;
    END IF;
    digits := greatest(p_digits, fn.length_under_attack(spent_at, p_tenant, p_device, v_wrong));
    IF digits < 8 AND p_hourly <= 10 AND fn.exposed(spent_at, p_tenant, p_person, p_attempts) > 60 THEN
        IF p_door IS NULL THEN
            digits := 8;
        ELSIF p_real AND withheld IS NULL THEN
            withheld := 'recipient-guessed';
            PERFORM fn.take_back_send(p_tenant, p_person, '');
        END IF;
    END IF;
END $$;

-- Counts a wrong code of so many digits, or a password (NULL), at the door and at the person, whichever lane it came by:
-- both are the day's. Those of strangers lock after too many in a row: 15 minutes, doubled each time up to a day.
CREATE OR REPLACE FUNCTION fn.count_wrong_guess(
    p_now timestamptz, p_tenant uuid, p_person bytea, p_door bytea, p_lane text, p_digits integer
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_limit integer := least(100, (SELECT (policy ->> 'lock_after_failures')::integer FROM tenants WHERE id = p_tenant));
    v_more  integer := CASE WHEN p_lane = '' THEN 1 ELSE 0 END;
    v_short timestamptz[] := CASE WHEN p_digits < 8 THEN ARRAY[p_now] ELSE '{}' END;
    v_key   bytea;
BEGIN
    FOREACH v_key IN ARRAY ARRAY[p_door, p_person] LOOP
        CONTINUE WHEN v_key IS NULL;
        INSERT INTO quota AS q (tenant_id, recipient_key, lane, person_key, sends, seen_at, wrong, short_wrong,
                                failures)
        VALUES (p_tenant, v_key, '', CASE WHEN v_key = p_door THEN p_person END, '{}', p_now, ARRAY[p_now], v_short,
                v_more)
        ON CONFLICT (tenant_id, recipient_key, lane) DO UPDATE SET
            wrong = fn.recent(q.wrong, greatest(p_now, q.seen_at), '1 day') || p_now,
            short_wrong = fn.recent(q.short_wrong, greatest(p_now, q.seen_at), '1 day') || v_short,
            failures = CASE WHEN q.failures + v_more >= v_limit THEN 0 ELSE q.failures + v_more END,
            strikes = CASE WHEN q.failures + v_more >= v_limit THEN q.strikes + 1 ELSE q.strikes END,
            locked_until = CASE WHEN q.failures + v_more >= v_limit
                                THEN p_now + least(interval '15 minutes' * 2 ^ least(q.strikes, 7), interval '1 day')
                                ELSE q.locked_until END;
    END LOOP;
    PERFORM fn.tally(p_now, p_tenant, p_person, 0, 0, 1);
END $$;

-- Failures in a row end here; the day's wrong guesses stay counted, or success would buy an attacker new ones.
CREATE OR REPLACE FUNCTION fn.forgive_failures(p_tenant uuid, p_person bytea, p_door bytea, p_lane text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_key bytea;
BEGIN
    IF p_lane <> '' OR NOT EXISTS (
        SELECT FROM quota
        WHERE tenant_id = p_tenant AND recipient_key IN (p_door, p_person) AND lane = '' AND failures + strikes > 0
    ) THEN
        RETURN;
    END IF;
    FOREACH v_key IN ARRAY ARRAY[p_door, p_person] LOOP
        UPDATE quota SET failures = 0, strikes = 0
        WHERE tenant_id = p_tenant AND recipient_key = v_key AND lane = '' AND failures + strikes > 0;
    END LOOP;
END $$;
