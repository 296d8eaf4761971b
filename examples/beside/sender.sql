-- The small server beside the application's, which has the extension and sends the
-- campaigns. See docs/install.md. In an empty database, as a superuser:
--   psql -v ON_ERROR_STOP=1 -v host=... -v port=5432 -v dbname=... -v password=... -f sender.sql
-- with the host, port and database of the application's server, and the password of its
-- role sms_sender, as in application.sql.
\set ON_ERROR_STOP on
-- the password does not belong in the log
SET log_statement = none;
SET log_min_error_statement = panic;
BEGIN;

CREATE EXTENSION sendcampaign;
CREATE EXTENSION dblink;

-- the role that sends
CREATE ROLE app LOGIN;
GRANT CREATE ON SCHEMA public TO app;
GRANT USAGE ON SCHEMA sendcampaign TO app;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
GRANT EXECUTE ON FUNCTION send_campaign TO app;

-- where it reports to
CREATE SERVER application FOREIGN DATA WRAPPER dblink_fdw
    OPTIONS (host :'host', port :'port', dbname :'dbname', connect_timeout '10',
             tcp_user_timeout '20000', keepalives_idle '10', keepalives_interval '5',
             keepalives_count '3', options '-c lock_timeout=5s -c statement_timeout=30s');
CREATE USER MAPPING FOR app SERVER application
    OPTIONS (user 'sms_sender', password :'password');
GRANT USAGE ON FOREIGN SERVER application TO app;

SET LOCAL ROLE app;
SELECT sendcampaign.create_tables();

-- No id of the application is too big. A job comes from the application: if this server
-- made one, it could have the id of another one there.
ALTER TABLE public.groups ALTER id TYPE bigint;
ALTER TABLE public.ac_lists ALTER id TYPE bigint, ALTER group_id TYPE bigint;
ALTER TABLE public.ac_campaigns ALTER id TYPE bigint, ALTER ac_list_id TYPE bigint;
ALTER TABLE public.ac_list_users ALTER id TYPE bigint, ALTER ac_list_id TYPE bigint;
ALTER TABLE public.ac_background_jobs ALTER id TYPE bigint, ALTER id DROP DEFAULT;

-- Counts are in columns that the application's tables do not have, so that replicated
-- changes of "data" leave them alone. count_before is what the application had counted
-- before the first message from here; told_count is what it has been told.
ALTER TABLE public.ac_list_users
    ADD sent_count integer NOT NULL DEFAULT 0,
    ADD count_before integer,
    ADD told_count integer NOT NULL DEFAULT 0;
CREATE INDEX ac_list_users_to_tell ON public.ac_list_users (id) WHERE sent_count <> told_count;
ALTER TABLE public.ac_background_jobs
    ADD told_progress integer,
    ADD told_error text,
    ADD told_data jsonb;
CREATE INDEX ac_background_jobs_to_tell ON public.ac_background_jobs (id)
    WHERE (progress, error, data) IS DISTINCT FROM (told_progress, told_error, told_data);

-- Without a key: an id that the application uses again must not stop the replication.
CREATE TABLE public.sms_requests (
    id bigint NOT NULL,
    job_id bigint NOT NULL,
    campaign_id bigint,
    action text NOT NULL,
    created_at timestamptz NOT NULL
);

RESET ROLE;
CREATE SCHEMA sms AUTHORIZATION app;
SET LOCAL ROLE app;

-- Does what a request says, in the transaction that replicates it. What is wrong with
-- the request is told to the job, or to the log if the job has a run, of whose outcome it
-- tells; what is wrong with this server is tried again.
CREATE FUNCTION sms.follow_request()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET sendcampaign.schema = 'public'
AS $$
DECLARE
    hint text;
BEGIN
    INSERT INTO public.ac_background_jobs (id, progress, data)
    VALUES (NEW.job_id, 5, '{}')
    ON CONFLICT (id) DO NOTHING;
    BEGIN
        CASE NEW.action
            WHEN 'send' THEN PERFORM public.send_campaign(NEW.campaign_id, NEW.job_id);
            WHEN 'pause' THEN PERFORM sendcampaign.pause(NEW.job_id);
            WHEN 'resume' THEN PERFORM sendcampaign.resume(NEW.job_id);
            WHEN 'cancel' THEN PERFORM sendcampaign.cancel(NEW.job_id);
        END CASE;
    EXCEPTION
        WHEN transaction_rollback OR insufficient_resources OR operator_intervention
             OR system_error OR internal_error OR lock_not_available THEN
            RAISE;
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            UPDATE public.ac_background_jobs
            SET error = pg_catalog.concat_ws(' ', SQLERRM || '.', hint)
            WHERE id = NEW.job_id
                AND NOT EXISTS (SELECT FROM sendcampaign.run r WHERE r.job_id = NEW.job_id);
            IF NOT FOUND THEN
                RAISE WARNING 'request % for background job %: %', NEW.id, NEW.job_id, SQLERRM
                    USING HINT = hint;
            END IF;
    END;
    RETURN NULL;
END
$$;

CREATE TRIGGER follow_request AFTER INSERT ON public.sms_requests
    FOR EACH ROW EXECUTE FUNCTION sms.follow_request();
ALTER TABLE public.sms_requests ENABLE ALWAYS TRIGGER follow_request;

-- Keeps what the application had counted, before the first total is told: from then on
-- its count includes ours.
CREATE FUNCTION sms.keep_counts_before(most integer)
RETURNS void
LANGUAGE sql
AS $$
    UPDATE public.ac_list_users u
    SET count_before =
        coalesce(pg_catalog.substring(u.data ->> 'sentCount', '^[0-9]{1,9}$')::integer, 0)
    WHERE u.count_before IS NULL AND u.id IN (
        SELECT d.id
        FROM public.ac_list_users d
        WHERE d.sent_count <> d.told_count
        ORDER BY d.id
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED);
$$;

-- Tells the application's server the counts of up to so many list users. All values are
-- totals, so telling them twice does no harm. Returns how many there were, or -1 if some
-- were locked. It waits for no lock: here, as what it tells comes back by replication and
-- would wait for it, and there, as the others would have to wait, too.
CREATE FUNCTION sms.tell_counts(most integer)
RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    ids bigint[];
    totals integer[];
    counts integer[];
    told bigint[];
    due integer;
BEGIN
    SELECT pg_catalog.array_agg(d.id), pg_catalog.array_agg(d.count_before + d.sent_count),
           pg_catalog.array_agg(d.sent_count),
           (SELECT pg_catalog.count(*)
            FROM (SELECT FROM public.ac_list_users u
                  WHERE u.sent_count <> u.told_count
                  LIMIT most) a)
    INTO ids, totals, counts, due
    FROM (SELECT u.id, u.count_before, u.sent_count
          FROM public.ac_list_users u
          WHERE u.sent_count <> u.told_count AND u.count_before IS NOT NULL
          ORDER BY u.id
          LIMIT most
          FOR NO KEY UPDATE SKIP LOCKED) d;
    IF ids IS NULL THEN
        RETURN CASE WHEN due = 0 THEN 0 ELSE -1 END;
    END IF;
    SELECT coalesce(pg_catalog.array_agg(t.id), '{}')
    INTO told
    FROM public.dblink('application', pg_catalog.format($sql$
        WITH n AS (SELECT * FROM ROWS FROM (pg_catalog.unnest(%L::bigint[]),
                                            pg_catalog.unnest(%L::integer[])) n(id, total)),
        locked AS (SELECT u.id FROM public.ac_list_users u WHERE u.id = ANY (SELECT n.id FROM n)
                   ORDER BY u.id FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE public.ac_list_users u
        SET data = CASE WHEN pg_catalog.jsonb_typeof(u.data) = 'object' THEN u.data ELSE '{}' END
                   || pg_catalog.jsonb_build_object('sentCount', n.total),
            updated_at = pg_catalog.now()
        FROM n JOIN locked USING (id)
        WHERE u.id = n.id
        RETURNING u.id $sql$, ids, totals)) t(id bigint);
    UPDATE public.ac_list_users u
    SET told_count = n.count
    FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(counts)) n(id, count)
    WHERE u.id = n.id AND u.id = ANY (told);
    RETURN CASE WHEN pg_catalog.cardinality(told) < due THEN -1
                ELSE pg_catalog.cardinality(told) END;
END
$$;

-- Tells it about jobs: what was read of them before the counts were told, so that a job
-- is never ahead of the counts.
CREATE FUNCTION sms.tell_jobs(jobs jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM public.dblink_exec('application', pg_catalog.format($sql$
        UPDATE public.ac_background_jobs j
        SET progress = n.progress, error = n.error,
            data = (CASE WHEN pg_catalog.jsonb_typeof(j.data) = 'object' THEN j.data ELSE '{}' END
                    - 'nextAt') || n.data,
            updated_at = pg_catalog.now()
        FROM pg_catalog.jsonb_to_recordset(%L::jsonb)
             n(id bigint, progress integer, error text, data jsonb)
        WHERE j.id = n.id $sql$, jobs));
    WITH n AS (
        SELECT * FROM pg_catalog.jsonb_to_recordset(jobs)
                      n(id bigint, progress integer, error text, data jsonb)),
    free AS (
        SELECT j.id FROM public.ac_background_jobs j WHERE j.id IN (SELECT n.id FROM n)
        FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE public.ac_background_jobs j
    SET told_progress = n.progress, told_error = n.error, told_data = n.data
    FROM n JOIN free USING (id)
    WHERE j.id = n.id;
END
$$;

-- Tells it all that is new. Call it every second or so, as the role app.
CREATE PROCEDURE sms.tell()
LANGUAGE plpgsql
AS $$
DECLARE
    jobs jsonb;
    told integer;
BEGIN
    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'id', d.id, 'progress', d.progress, 'error', d.error, 'data', d.data))
    INTO jobs
    FROM (SELECT j.id, j.progress, j.error, j.data
          FROM public.ac_background_jobs j
          WHERE (j.progress, j.error, j.data) IS DISTINCT FROM
                (j.told_progress, j.told_error, j.told_data)
          ORDER BY j.id
          LIMIT 1000) d;
    LOOP
        told := NULL;
        -- one at a time, so that what is older is not told later
        EXIT WHEN NOT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('sms.tell'));
        PERFORM sms.keep_counts_before(1000);
        COMMIT;
        EXIT WHEN NOT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('sms.tell'));
        told := sms.tell_counts(1000);
        COMMIT;
        EXIT WHEN told < 1000;
    END LOOP;
    -- not ahead of counts that were locked
    IF jobs IS NOT NULL AND told >= 0 AND
       pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('sms.tell')) THEN
        PERFORM sms.tell_jobs(jobs);
    END IF;
END
$$;

REVOKE ALL ON ALL ROUTINES IN SCHEMA sms FROM PUBLIC;
COMMIT;

\ir subscribe.sql
