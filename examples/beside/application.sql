-- The application's server: what a small server beside it needs, which sends the
-- campaigns. See docs/install.md. In the application's database, as the owner of its
-- tables, who may create publications (CREATE on the database):
--   psql -v ON_ERROR_STOP=1 -v password=... -f application.sql
-- wal_level must be logical there.
\set ON_ERROR_STOP on
BEGIN;

-- Changes are replicated by the primary key. With another replica identity, the server
-- would refuse the application's own UPDATE and DELETE once the table is published.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{groups,ac_lists,ac_campaigns,ac_list_users}'::text[] LOOP
        IF NOT EXISTS (
            SELECT FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id'
            WHERE c.oid = pg_catalog.format('public.%I', name)::regclass
                AND c.relreplident = 'd' AND i.indkey::text = a.attnum::text)
        THEN
            RAISE EXCEPTION 'the replica identity of table "%" is not its primary key "id"', name
                USING HINT = 'Give it this primary key and REPLICA IDENTITY DEFAULT, or change the columns of the publication.';
        END IF;
    END LOOP;
END
$$;

-- Whoever inserts a row asks for something. Part of the application's transaction, as
-- send_campaign() is where the extension is installed.
CREATE TABLE public.sms_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id bigint NOT NULL,
    campaign_id bigint,
    action text NOT NULL DEFAULT 'send' CHECK (action IN ('send', 'pause', 'resume', 'cancel')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (action <> 'send' OR campaign_id IS NOT NULL)
);

-- The role as which the small server connects: it reads these columns, and writes the
-- counts and the progress. Not every server lets you give out REPLICATION by this name.
-- With row-level security on any of these tables, it needs BYPASSRLS as well: without it,
-- there is an error then, instead of rows that are silently missing.
CREATE ROLE sms_sender LOGIN REPLICATION PASSWORD :'password';
ALTER ROLE sms_sender SET row_security = off;
GRANT USAGE ON SCHEMA public TO sms_sender;
GRANT SELECT (id, configuration) ON public.groups TO sms_sender;
GRANT SELECT (id, group_id) ON public.ac_lists TO sms_sender;
GRANT SELECT (id, ac_list_id, data) ON public.ac_campaigns TO sms_sender;
GRANT SELECT (id, ac_list_id, data) ON public.ac_list_users TO sms_sender;
GRANT UPDATE (data, updated_at) ON public.ac_list_users TO sms_sender;
GRANT SELECT (id, data) ON public.ac_background_jobs TO sms_sender;
GRANT UPDATE (progress, error, data, updated_at) ON public.ac_background_jobs TO sms_sender;
GRANT SELECT ON public.sms_requests TO sms_sender;

CREATE PUBLICATION sms_tables FOR TABLE
    public.groups (id, configuration),
    public.ac_lists (id, group_id),
    public.ac_campaigns (id, ac_list_id, data),
    public.ac_list_users (id, ac_list_id, data);
CREATE PUBLICATION sms_requests FOR TABLE public.sms_requests WITH (publish = 'insert');

COMMIT;
