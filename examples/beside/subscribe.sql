-- The small server beside the application's: begins to follow its tables and requests, as
-- the last step of sender.sql, or anew. See docs/install.md. In the database of sender.sql,
-- whose tables must be empty, as a superuser, with the same variables.
\set ON_ERROR_STOP on

-- First the tables with their rows; the requests only once these are there, and without
-- those of the past, which would send them again.
\set source 'host=' :host ' port=' :port ' dbname=' :dbname ' user=sms_sender password=' :password
CREATE SUBSCRIPTION sms CONNECTION :'source' PUBLICATION sms_tables;
SELECT 'Waiting for the first copy of the tables' AS status;
DO $$
BEGIN
    WHILE EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r
                  JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid
                  WHERE s.subname = 'sms' AND r.srsubstate <> 'r')
    LOOP
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
                  WHERE s.subname = 'sms' AND s.pid IS NOT NULL)
    LOOP
        PERFORM pg_catalog.pg_sleep(0.1);
        COMMIT;
    END LOOP;
END
$$;
ALTER SUBSCRIPTION sms ADD PUBLICATION sms_requests WITH (refresh = false);
ALTER SUBSCRIPTION sms ENABLE;
ALTER SUBSCRIPTION sms REFRESH PUBLICATION WITH (copy_data = false);
