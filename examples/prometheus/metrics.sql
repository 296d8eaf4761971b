-- What a collector of metrics may ask of a database that sends: counts of the
-- runs of all roles, and nothing about a recipient, a text or a reply.  To be run
-- as a superuser, once in each such database:
--     psql -d shop -f examples/prometheus/metrics.sql
-- Run again, it replaces what it made before.
--
-- Role "exporter" may call these functions; it sees no run and no message.  Their
-- owner, with which nobody can log in, sees them.
\set ON_ERROR_STOP on
BEGIN;

DO $$
BEGIN
    IF to_regrole('sendcampaign_metrics') IS NULL THEN
        CREATE ROLE sendcampaign_metrics NOLOGIN BYPASSRLS;
    END IF;
    IF to_regrole('exporter') IS NULL THEN
        CREATE ROLE exporter LOGIN;
    END IF;
END
$$;
GRANT pg_read_all_stats TO sendcampaign_metrics;    -- whose worker a process is
GRANT USAGE ON SCHEMA sendcampaign TO sendcampaign_metrics;

SET client_min_messages = warning;
DROP SCHEMA IF EXISTS sendcampaign_metrics CASCADE;
RESET client_min_messages;
CREATE SCHEMA sendcampaign_metrics;
GRANT USAGE ON SCHEMA sendcampaign_metrics TO sendcampaign_metrics, exporter;

CREATE FUNCTION sendcampaign_metrics.runs(OUT datname text, OUT state text, OUT count bigint)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT current_database()::text, s.state, count(r.job_id)
    FROM unnest('{queued,running,paused,completed,failed,cancelled}'::text[]) s(state)
    LEFT JOIN sendcampaign.run r ON r.state = s.state AND r.test_phone IS NULL
    GROUP BY s.state
$$;
COMMENT ON FUNCTION sendcampaign_metrics.runs() IS 'Runs by state, without test messages';

-- An application that sends single messages has very many runs, and Prometheus
-- should not have series for all of them: of each state, the largest are shown, so
-- that those which need a person are not hidden by others.
CREATE FUNCTION sendcampaign_metrics.run(
    OUT datname text, OUT schema text, OUT job_id text, OUT campaign_id text, OUT role text,
    OUT recipients bigint, OUT sent bigint, OUT delivered bigint, OUT undelivered bigint,
    OUT unconfirmed bigint, OUT failed bigint, OUT skipped bigint, OUT in_doubt bigint,
    OUT active integer, OUT without_worker integer, OUT paused integer,
    OUT paused_by_itself integer, OUT has_failed integer)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH worker AS (
        SELECT a.usesysid AS role_oid
        FROM pg_stat_activity a
        WHERE a.datname = current_database()
          AND a.backend_type IN ('sendcampaign worker', 'sendcampaign list worker')),
    run AS (
        SELECT r.*, r.finished_at IS NULL AND r.state <> 'paused'
                    AND (r.next_at IS NULL OR r.next_at <= now()) AS is_active
        FROM sendcampaign.run r
        WHERE r.finished_at IS NULL OR r.in_doubt > 0
           OR r.finished_at > now() - interval '1 hour' AND r.total > 1
           OR r.finished_at > now() - interval '1 day' AND r.state = 'failed'),
    numbered AS (
        SELECT r.*, row_number() OVER (PARTITION BY r.state, r.in_doubt > 0
                                       ORDER BY r.total DESC NULLS LAST, r.id DESC) AS number
        FROM run r)
    SELECT current_database()::text, r.schema::text, r.job_id::text, r.campaign_id::text,
           r.role::text, coalesce(r.total, 0), r.sent, r.delivered, r.undelivered, r.unconfirmed,
           r.failed, r.skipped, r.in_doubt,
           r.is_active::integer,
           (r.is_active AND NOT EXISTS (SELECT FROM worker w WHERE w.role_oid = r.role_oid))::integer,
           (r.state = 'paused')::integer,
           (r.state = 'paused' AND coalesce(r.error, '') NOT LIKE 'paused by %')::integer,
           (r.state = 'failed')::integer
    FROM numbered r
    WHERE r.number <= 25
$$;
COMMENT ON FUNCTION sendcampaign_metrics.run() IS
'Runs that have not ended, need a person, or have ended within an hour; at most 25 of each state, and as many with messages in doubt';

CREATE FUNCTION sendcampaign_metrics.workers(
    OUT datname text, OUT count bigint, OUT sweep_late_seconds double precision)
RETURNS record
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT current_database()::text,
           (SELECT count(*) FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.backend_type = 'sendcampaign worker'),
           -- of runs that belong here: nobody asks for those of another cluster
           coalesce((SELECT extract(epoch FROM now() - min(r.sweep_at))::double precision
                     FROM sendcampaign.run r
                     JOIN pg_database d ON d.datname = current_database() AND d.oid = r.database
                     JOIN pg_roles o ON o.oid = r.role_oid
                     WHERE r.sweep_at < now() AND r.system_identifier =
                         (SELECT c.system_identifier::numeric FROM pg_control_system() c)), 0)
$$;
COMMENT ON FUNCTION sendcampaign_metrics.workers() IS
'Workers, and how long ago Twilio should have been asked what became of messages';

CREATE FUNCTION sendcampaign_metrics.failures(
    OUT datname text, OUT kind text, OUT code text, OUT meaning text, OUT count bigint)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT current_database()::text, f.kind, coalesce(f.code, 0)::text,
           coalesce(e.description, ''), count(*)
    FROM (SELECT CASE WHEN m.status = 'failed' THEN 'failed' ELSE 'undelivered' END AS kind,
                 CASE WHEN m.status = 'failed' THEN m.error_code ELSE m.delivery_code END AS code
          FROM sendcampaign.run r
          JOIN sendcampaign.message m ON m.run_id = r.id
          WHERE (m.status = 'failed' OR m.delivery IN ('undelivered', 'failed', 'canceled'))
            AND (r.finished_at IS NULL OR r.finished_at > now() - interval '1 day')) f
    LEFT JOIN sendcampaign.error_code e ON e.code = f.code
    GROUP BY f.kind, f.code, e.description
$$;
COMMENT ON FUNCTION sendcampaign_metrics.failures() IS
'Messages that failed or were not delivered, by Twilio''s error code, in the runs of one day';

ALTER FUNCTION sendcampaign_metrics.runs() OWNER TO sendcampaign_metrics;
ALTER FUNCTION sendcampaign_metrics.run() OWNER TO sendcampaign_metrics;
ALTER FUNCTION sendcampaign_metrics.workers() OWNER TO sendcampaign_metrics;
ALTER FUNCTION sendcampaign_metrics.failures() OWNER TO sendcampaign_metrics;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sendcampaign_metrics FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sendcampaign_metrics TO exporter;

COMMIT;
