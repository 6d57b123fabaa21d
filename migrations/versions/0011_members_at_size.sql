-- What a hundred thousand members of one tenant need: lists and searches read off one index, the figures kept by the
-- hour, and what became of a code found by the code.

-- Searches look at these columns of every member of the tenant: here they stand together, in the order of the list.
DROP INDEX ix_members_name;
CREATE INDEX ix_members_name ON members (tenant_id, sort_name, id) INCLUDE (email, phone_number, status, codes_enabled);

-- Asked once for a statement and not for each row: a search looks at all of them.
DROP POLICY tenant_rows ON members;
CREATE POLICY tenant_rows ON members USING (tenant_id = (SELECT fn.current_tenant()) OR (SELECT fn.all_tenants()));

CREATE INDEX ix_delivery_events_challenge ON delivery_events (tenant_id, challenge_id);

-- How members of a tenant got on with signing in, by the hour (app/members/stats.py). No hour is left out: the newest
-- one says how far it is counted.
CREATE TABLE member_hours (
    tenant_id uuid        NOT NULL,
    hour      timestamptz NOT NULL,
    requested bigint      NOT NULL DEFAULT 0,
    sent      bigint      NOT NULL DEFAULT 0,
    delivered bigint      NOT NULL DEFAULT 0,
    verified  bigint      NOT NULL DEFAULT 0,
    wrong     bigint      NOT NULL DEFAULT 0,
    locked    bigint      NOT NULL DEFAULT 0,
    begun     bigint      NOT NULL DEFAULT 0,
    succeeded bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, hour)
);
ALTER TABLE member_hours ENABLE ROW LEVEL SECURITY;
ALTER TABLE member_hours FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON member_hours USING (tenant_id = fn.current_tenant() OR fn.all_tenants());
