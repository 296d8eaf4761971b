/*
 * schema.sql
 *		What the sections of script/bench share, in the template of their
 *		databases: the application's tables, campaigns, and a call of
 *		send_campaign() that is watched until its worker has ended.
 */
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;

CREATE EXTENSION sendcampaign;
CREATE ROLE app LOGIN;
GRANT CREATE ON SCHEMA public TO app;
GRANT USAGE ON SCHEMA sendcampaign TO app;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
GRANT EXECUTE ON FUNCTION send_campaign TO app;
SET ROLE app;
DO 'BEGIN PERFORM sendcampaign.create_tables(); END';
RESET ROLE;

CREATE SCHEMA bench;

/*
 * One row per call, never updated: its xmin is the transaction of the call,
 * whose commit time is known because of track_commit_timestamp.
 */
CREATE TABLE bench.call (
    job_id bigint PRIMARY KEY,
    what text NOT NULL,
    call_ms double precision NOT NULL
);

/* What was measured of the worker that ended with the run, and the WAL written. */
CREATE TABLE bench.worker (
    job_id bigint PRIMARY KEY,
    cpu_s double precision NOT NULL,
    rss_anon_kb integer,
    wal_bytes numeric NOT NULL
);

CREATE FUNCTION bench.seconds(i interval)
RETURNS double precision
LANGUAGE sql
AS 'SELECT extract(epoch FROM i)::double precision';

CREATE VIEW bench.run AS
SELECT r.job_id, r.campaign_id, c.what, r.total, c.call_ms,
       r.queued_at, r.started_at, r.finished_at,
       bench.seconds(r.finished_at - r.started_at) AS run_s,
       r.total / bench.seconds(r.finished_at - r.started_at) AS messages_per_s,
       pg_xact_commit_timestamp(c.xmin) AS committed_at,
       bench.seconds(pg_xact_commit_timestamp(d.xmin) - pg_xact_commit_timestamp(c.xmin))
           AS commit_to_completed_s,
       w.cpu_s, w.rss_anon_kb, w.wal_bytes
FROM bench.call c
JOIN sendcampaign.run r USING (job_id)
LEFT JOIN bench.worker w USING (job_id)
JOIN sendcampaign.run_data d ON d.id = r.id;

CREATE FUNCTION bench.phone(n integer)
RETURNS text
LANGUAGE sql
AS $$ SELECT '+1555' || lpad(n::text, greatest(7, length(n::text)), '0') $$;

/* Creates a group that sends to the local Twilio; returns its id. */
CREATE FUNCTION bench.create_group()
RETURNS bigint
LANGUAGE sql
AS $$
    INSERT INTO groups (configuration) VALUES (jsonb_build_object(
        'twilioAccountSid', current_setting('bench.account'),
        'twilioAuthToken', current_setting('bench.token'),
        'twilioFromSmsNumber', '+15005550006')) RETURNING id
$$;

/* floor_http.c has the same text. */
CREATE FUNCTION bench.create_campaign(recipients integer)
RETURNS bigint
LANGUAGE sql
AS $$
    WITH l AS (
        INSERT INTO ac_lists (group_id) SELECT bench.create_group() RETURNING id),
    u AS (
        INSERT INTO ac_list_users (ac_list_id, data)
        SELECT l.id, jsonb_build_object('sms', bench.phone(n),
            'sentCount', 0, 'openCount', 0, 'completeCount', 0)
        FROM l, generate_series(1, recipients) n)
    INSERT INTO ac_campaigns (ac_list_id, data)
    SELECT id, jsonb_build_object('message', 'How was the meeting? Three questions:',
        'baseUrl', 'https://example.org/survey') FROM l
    RETURNING id
$$;

/*
 * Creates so many campaigns of one recipient each, all of one group, and returns
 * the lowest id; the others follow it.  Recipients have different phone numbers.
 */
CREATE FUNCTION bench.create_small(campaigns integer)
RETURNS bigint
LANGUAGE sql
AS $$
    WITH g AS MATERIALIZED (
        SELECT bench.create_group() AS id),
    l AS (
        INSERT INTO ac_lists (group_id) SELECT id FROM g, generate_series(1, campaigns) RETURNING id),
    u AS (
        INSERT INTO ac_list_users (ac_list_id, data)
        SELECT id, jsonb_build_object('sms', bench.phone(row_number() OVER (ORDER BY id)::integer),
            'sentCount', 0, 'openCount', 0, 'completeCount', 0)
        FROM l),
    c AS (
        INSERT INTO ac_campaigns (ac_list_id, data)
        SELECT id, jsonb_build_object('message', 'How was the meeting? Three questions:',
            'baseUrl', 'https://example.org/survey') FROM l ORDER BY id
        RETURNING id)
    SELECT min(id) FROM c
$$;

/* Calls send_campaign() as the application does, and commits. */
CREATE PROCEDURE bench.call(what text, campaign bigint, INOUT job bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    before timestamptz;
    after timestamptz;
BEGIN
    SET ROLE app;
    before := clock_timestamp();
    job := send_campaign(campaign);
    after := clock_timestamp();
    RESET ROLE;
    INSERT INTO bench.call VALUES (job, what, bench.seconds(after - before) * 1000);
    COMMIT;
END
$$;

/* Measures calls that are rolled back.  The first one loads the library. */
CREATE TABLE bench.call_time (campaign_id bigint, n integer, ms double precision);

CREATE PROCEDURE bench.time_calls(campaign bigint, calls integer)
LANGUAGE plpgsql
AS $$
DECLARE
    before timestamptz;
    after timestamptz;
BEGIN
    FOR n IN 1 .. calls LOOP
        SET ROLE app;
        before := clock_timestamp();
        PERFORM send_campaign(campaign);
        after := clock_timestamp();
        ROLLBACK;
        INSERT INTO bench.call_time VALUES (campaign, n, bench.seconds(after - before) * 1000);
        COMMIT;
    END LOOP;
END
$$;

CREATE FUNCTION bench.worker_pid()
RETURNS integer
LANGUAGE sql
AS $$
    SELECT pid FROM pg_stat_activity
    WHERE backend_type = 'sendcampaign worker' AND datname = current_database()
$$;

/*
 * Private memory of the process that has most of it, in kB: of the worker, or of
 * the one that stores a long list.  Null if there is none.
 */
CREATE FUNCTION bench.rss_anon_kb()
RETURNS integer
LANGUAGE sql
AS $$
    SELECT max(substring(pg_read_file(format('/proc/%s/status', pid), 0, 10000, true)
        FROM 'RssAnon:\s+(\d+)')::integer)
    FROM pg_stat_activity
    WHERE backend_type IN ('sendcampaign worker', 'sendcampaign list worker')
        AND datname = current_database()
$$;

/* Tells whether the run has ended.  It is an error if it did not send everything. */
CREATE FUNCTION bench.has_ended(job bigint)
RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    run sendcampaign.run;
BEGIN
    SELECT * INTO STRICT run FROM sendcampaign.run WHERE job_id = job;
    IF run.state IN ('queued', 'running') AND run.queued_at > clock_timestamp() - interval '1 hour' THEN
        RETURN false;
    END IF;
    IF run.state <> 'completed' OR run.sent <> run.total THEN
        RAISE 'job % is % with % of % sent: %', job, run.state, run.sent, run.total, run.error;
    END IF;
    RETURN true;
END
$$;

/* Waits until the run has ended, or has sent that many messages. */
CREATE PROCEDURE bench.wait(job bigint, enough bigint DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    LOOP
        EXIT WHEN bench.has_ended(job);
        EXIT WHEN (SELECT sent >= enough FROM sendcampaign.run WHERE job_id = job);
        COMMIT;
        PERFORM pg_sleep(0.02);
    END LOOP;
END
$$;

/* Waits until no run of this database is queued or running, and checks that all are completed. */
CREATE PROCEDURE bench.wait_for_runs()
LANGUAGE plpgsql
AS $$
DECLARE
    run sendcampaign.run_data;
BEGIN
    WHILE EXISTS (SELECT FROM sendcampaign.run_data WHERE state IN ('queued', 'running')) LOOP
        COMMIT;
        PERFORM pg_sleep(0.1);
    END LOOP;
    SELECT * INTO run FROM sendcampaign.run_data WHERE state <> 'completed' OR sent <> total LIMIT 1;
    IF FOUND THEN
        RAISE 'job % is % with % of % sent: %', run.job_id, run.state, run.sent, run.total, run.error;
    END IF;
END
$$;

/* Waits until all calls with that name have ended. */
CREATE PROCEDURE bench.wait_for_all(name text)
LANGUAGE plpgsql
AS $$
DECLARE
    job bigint;
BEGIN
    FOR job IN SELECT job_id FROM bench.call WHERE what = name LOOP
        CALL bench.wait(job);
    END LOOP;
END
$$;

CREATE PROCEDURE bench.wait_for_no_worker(pid integer DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    WHILE bench.worker_pid() IS NOT NULL OR bench.is_process(pid) LOOP
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;

/*
 * Calls these campaigns at once, and watches the worker at this interval (in
 * seconds) until it has ended.  There must be no worker before.  What is measured
 * is that of the first job.
 */
CREATE PROCEDURE bench.send_all(what text, campaigns bigint[], look_s double precision DEFAULT 0.05)
LANGUAGE plpgsql
AS $$
DECLARE
    campaign bigint;
    job bigint;
    jobs bigint[];
    cpu_before double precision;
    wal_before pg_lsn := pg_current_wal_insert_lsn();
    rss_anon_kb integer;
    pid integer;
BEGIN
    CALL bench.wait_for_no_worker();
    cpu_before := bench.cpu_of_ended_s();
    FOREACH campaign IN ARRAY campaigns LOOP
        CALL bench.call(what, campaign, job);
        jobs := jobs || job;
    END LOOP;
    FOREACH job IN ARRAY jobs LOOP
        WHILE NOT bench.has_ended(job) LOOP
            pid := coalesce(pid, bench.worker_pid());
            rss_anon_kb := greatest(rss_anon_kb, bench.rss_anon_kb());
            COMMIT;
            PERFORM pg_sleep(look_s);
        END LOOP;
    END LOOP;
    CALL bench.wait_for_no_worker(pid);
    INSERT INTO bench.worker VALUES (jobs[1], bench.cpu_of_ended_s() - cpu_before, rss_anon_kb,
        pg_current_wal_insert_lsn() - wal_before);
    COMMIT;
END
$$;

/* The same with one campaign. */
CREATE PROCEDURE bench.send(what text, campaign bigint, look_s double precision DEFAULT 0.05)
LANGUAGE plpgsql
AS $$ BEGIN CALL bench.send_all(what, ARRAY[campaign], look_s); END $$;

/* Calls campaigns one after the other, each when the one before has ended. */
CREATE PROCEDURE bench.send_each(what text, campaigns bigint[], look_s double precision DEFAULT 0.002)
LANGUAGE plpgsql
AS $$
DECLARE
    campaign bigint;
    job bigint;
BEGIN
    FOREACH campaign IN ARRAY campaigns LOOP
        CALL bench.call(what, campaign, job);
        WHILE NOT bench.has_ended(job) LOOP
            COMMIT;
            PERFORM pg_sleep(look_s);
        END LOOP;
    END LOOP;
END
$$;

/*
 * The same, and measures the CPU time of all workers that there were, until the
 * last one has ended.  It is kept with the last job.
 */
CREATE PROCEDURE bench.send_in_a_row(what text, campaigns bigint[], look_s double precision DEFAULT 0.002)
LANGUAGE plpgsql
AS $$
DECLARE
    cpu_before double precision;
    wal_before pg_lsn;
BEGIN
    CALL bench.wait_for_no_worker();
    cpu_before := bench.cpu_of_ended_s();
    wal_before := pg_current_wal_insert_lsn();
    CALL bench.send_each(what, campaigns, look_s);
    CALL bench.wait_for_no_worker(bench.worker_pid());
    INSERT INTO bench.worker
    SELECT max(job_id), bench.cpu_of_ended_s() - cpu_before, NULL, pg_current_wal_insert_lsn() - wal_before
    FROM bench.call;
    COMMIT;
END
$$;

/* Transactions of pgbench, from its log; the time is the end of each. */
CREATE TABLE bench.pgbench (
    client integer, n integer, latency_us bigint, script integer, epoch bigint, us bigint
);

CREATE FUNCTION bench.ended_at(pgbench bench.pgbench)
RETURNS timestamptz
LANGUAGE sql
AS $$ SELECT to_timestamp(0) + pgbench.epoch * interval '1 s' + pgbench.us * interval '1 us' $$;

/* What the local Twilio has accepted; the columns are those of its ledger. */
CREATE TABLE bench.ledger (
    time_us bigint, sid text, account text, login text, sender text, service text,
    phone text, body text, extra text
);

CREATE FUNCTION bench.accepted_at(ledger bench.ledger)
RETURNS timestamptz
LANGUAGE sql
AS $$ SELECT to_timestamp(0) + ledger.time_us * interval '1 us' $$;

CREATE FUNCTION bench.campaign_id(ledger bench.ledger)
RETURNS bigint
LANGUAGE sql
AS $$ SELECT substring(ledger.body FROM '&yc=(\d+)$')::bigint $$;

/* An aggregate that PostgreSQL lacks. */
CREATE FUNCTION bench.median_of(numbers double precision[])
RETURNS double precision
LANGUAGE sql
AS $$ SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY n) FROM unnest(numbers) n $$;

CREATE AGGREGATE public.median(double precision) (
    SFUNC = array_append, STYPE = double precision[], FINALFUNC = bench.median_of, INITCOND = '{}'
);
