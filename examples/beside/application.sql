-- The application's server: what a small server beside it needs, which sends the
-- campaigns. See docs/install.md. In the application's database, as the owner of its
-- tables, who may create publications (CREATE on the database):
--   psql -v ON_ERROR_STOP=1 -v password=... -f application.sql
-- wal_level must be logical there.
\set ON_ERROR_STOP on
BEGIN;

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
CREATE ROLE sms_sender LOGIN REPLICATION PASSWORD :'password';
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
