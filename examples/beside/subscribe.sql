-- The small server beside the application's: begins to follow its tables and requests, as
-- the last step of sender.sql, or anew. See docs/install.md. In the database of sender.sql,
-- whose tables must be empty, as a superuser, with the same variables. If it was
-- interrupted, call it again: it goes on where it was.
\set ON_ERROR_STOP on
SET statement_timeout = 0;
-- the password does not belong in the log
SET log_statement = none;
SET log_min_error_statement = panic;

-- First the tables with their rows; the requests only once these are there, and without
-- those of the past, which would send them again. A request counts as received only when
-- it is on disk, on a synchronous standby as well if there is one.
\set source 'host=' :host ' port=' :port ' dbname=' :dbname ' user=sms_sender password=' :password
-- other databases may have one of that name
CREATE TEMPORARY VIEW this_subscription AS
    SELECT s.oid
    FROM pg_catalog.pg_subscription s
    JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
    WHERE s.subname = 'sms' AND d.datname = pg_catalog.current_database();
-- the column has another name since PostgreSQL 19
CREATE TEMPORARY VIEW failed_copies AS
    SELECT coalesce(pg_catalog.to_jsonb(s) ->> 'sync_table_error_count',
                    pg_catalog.to_jsonb(s) ->> 'sync_error_count')::bigint AS count
    FROM pg_catalog.pg_stat_subscription_stats s
    WHERE s.subid = (TABLE this_subscription);
SELECT EXISTS (TABLE this_subscription) AS begun
\gset
\if :begun
ALTER SUBSCRIPTION sms ENABLE;
\else
DO $$
BEGIN
    IF EXISTS (SELECT FROM public.groups) OR EXISTS (SELECT FROM public.ac_lists)
        OR EXISTS (SELECT FROM public.ac_campaigns) OR EXISTS (SELECT FROM public.ac_list_users)
    THEN
        RAISE EXCEPTION 'the tables are not empty'
            USING HINT = 'TRUNCATE groups, ac_lists, ac_campaigns, ac_list_users, as docs/install.md says.';
    END IF;
END
$$;
CREATE SUBSCRIPTION sms CONNECTION :'source' PUBLICATION sms_tables
    WITH (synchronous_commit = on);
\endif

SELECT 'Waiting for the first copy of the tables' AS status;
DO $$
DECLARE
    subscription oid := (TABLE this_subscription);
    failed bigint := (SELECT count FROM failed_copies);
BEGIN
    WHILE EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r
                  WHERE r.srsubid = subscription AND r.srsubstate <> 'r')
    LOOP
        IF (SELECT count FROM failed_copies) > failed THEN
            RAISE EXCEPTION 'a table could not be copied'
                USING HINT = 'The server log says why. It is tried again; then call this script again.';
        END IF;
        PERFORM pg_catalog.pg_sleep(0.1);
        COMMIT;
    END LOOP;
END
$$;

-- The process that follows the tables would pass over requests until it has started anew,
-- so it is stopped while they are added. From the end of this script on, every request is
-- followed; one that is made before may be passed over.
ALTER SUBSCRIPTION sms DISABLE;
DO $$
BEGIN
    WHILE EXISTS (SELECT FROM pg_catalog.pg_stat_subscription s
                  WHERE s.subid = (TABLE this_subscription)
                      AND s.pid IS NOT NULL)
    LOOP
        PERFORM pg_catalog.pg_sleep(0.1);
        COMMIT;
    END LOOP;
END
$$;
ALTER SUBSCRIPTION sms SET PUBLICATION sms_tables, sms_requests WITH (refresh = false);
ALTER SUBSCRIPTION sms ENABLE;
ALTER SUBSCRIPTION sms REFRESH PUBLICATION WITH (copy_data = false);
