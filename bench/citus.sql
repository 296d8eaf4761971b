/*
 * citus.sql
 *		What bench/citus.sh measures with, on each node: a tenant, and its
 *		campaign, sent and watched in one session.
 */
SET citus.enable_ddl_propagation = off;
SET client_min_messages = warning;

GRANT CREATE ON SCHEMA public TO app;
GRANT USAGE ON SCHEMA sendcampaign TO app;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
GRANT EXECUTE ON FUNCTION send_campaign TO app;

CREATE SCHEMA bench;

CREATE TABLE bench.measured (
    schema text PRIMARY KEY,
    messages bigint NOT NULL,
    started_s numeric NOT NULL,
    finished_s numeric NOT NULL,
    cpu_s double precision NOT NULL
);

/* A schema with a campaign 1 and a job 1, not distributed yet. */
CREATE PROCEDURE bench.create_tenant(schema name, recipients integer, account text, token text)
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('CREATE SCHEMA %I AUTHORIZATION app', schema);
    SET LOCAL ROLE app;
    PERFORM sendcampaign.create_tables(schema);
    PERFORM set_config('search_path', quote_ident(schema), true);
    INSERT INTO groups (configuration) VALUES (jsonb_build_object(
        'twilioAccountSid', account, 'twilioAuthToken', token,
        'twilioFromSmsNumber', '+15005550006'));
    INSERT INTO ac_lists (group_id) VALUES (1);
    INSERT INTO ac_list_users (ac_list_id, data)
    SELECT 1, jsonb_build_object('sms', '+1555' || lpad(n::text, 7, '0'),
        'sentCount', 0, 'openCount', 0, 'completeCount', 0)
    FROM generate_series(1, recipients) n;
    INSERT INTO ac_campaigns (ac_list_id, data)
    VALUES (1, jsonb_build_object('message', 'How was the meeting? Three questions:',
        'baseUrl', 'https://example.org/survey'));
    INSERT INTO ac_background_jobs (progress) VALUES (5);
END
$$;

/* Sends it, and waits until the worker has ended: its CPU time is known then. */
CREATE PROCEDURE bench.measure(tenant name)
LANGUAGE plpgsql
AS $$
DECLARE
    before double precision := bench.cpu_of_ended_s();
    worker integer;
BEGIN
    PERFORM set_config('sendcampaign.schema', tenant, false);
    SET ROLE app;
    PERFORM send_campaign(1, 1);
    RESET ROLE;
    COMMIT;
    WHILE EXISTS (SELECT FROM sendcampaign.run r WHERE r.schema = tenant AND r.finished_at IS NULL)
        OR bench.is_process(worker) LOOP
        SELECT coalesce(worker, max(pid)) INTO worker
        FROM pg_stat_activity WHERE backend_type = 'sendcampaign worker';
        COMMIT;
        PERFORM pg_sleep(0.05);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
    INSERT INTO bench.measured
    SELECT r.schema, r.sent, extract(epoch FROM r.started_at), extract(epoch FROM r.finished_at),
        bench.cpu_of_ended_s() - before
    FROM sendcampaign.run r WHERE r.schema = tenant;
END
$$;
