-- Pages of the admin portal that stay quick: what they show is found by an index, however much else there is.

-- Who changed what about a tenant, among all that its people did.
CREATE INDEX ix_audit_events_changes ON audit_events (tenant_id, at, id) WHERE action LIKE 'tenant.%';
-- Tenants whose own contact is bad, among all bad contacts of members.
CREATE INDEX ix_contact_health_own ON contact_health (tenant_id) WHERE subject_id = tenant_id;
