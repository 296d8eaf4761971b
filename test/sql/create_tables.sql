-- create_tables(): what is missing, and nothing else.
CREATE EXTENSION sendcampaign;
CREATE VIEW app_columns AS
SELECT table_schema, table_name, ordinal_position AS n, column_name, data_type, is_nullable,
       regexp_replace(column_default, '[a-z_".A-Z ]+_id_seq', '..._id_seq') AS column_default
FROM information_schema.columns
WHERE table_name IN ('groups', 'ac_lists', 'ac_campaigns', 'ac_list_users', 'ac_background_jobs');

SELECT sendcampaign.create_tables();
SELECT table_name, column_name, data_type, is_nullable, column_default FROM app_columns
WHERE table_schema = 'public' ORDER BY table_name COLLATE "C", n;
SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid::regclass::text IN (SELECT table_name FROM app_columns) AND contype = 'p'
ORDER BY conrelid::regclass::text COLLATE "C";
SELECT pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = 'ac_list_users'::regclass AND NOT indisprimary;

-- again: nothing happens, and what is there stays
INSERT INTO groups (name) VALUES ('kept');
SELECT sendcampaign.create_tables();
SELECT sendcampaign.create_tables('public');
SELECT id, name, created_at <= now() AS created, updated_at <= now() AS updated FROM groups;

-- another schema, one table of which is there already in a form of its own
CREATE SCHEMA "Other Schema";
CREATE TABLE "Other Schema".ac_lists (id bigserial PRIMARY KEY, mine text);
SELECT sendcampaign.create_tables('Other Schema');
SELECT table_name, count(*) AS columns, min(data_type) FILTER (WHERE column_name = 'id') AS id
FROM app_columns
WHERE table_schema = 'Other Schema'
GROUP BY table_name
ORDER BY table_name COLLATE "C";
INSERT INTO "Other Schema".ac_background_jobs DEFAULT VALUES
RETURNING id, progress, error, data, internal_data;

-- what cannot be
\set SHOW_CONTEXT never
SELECT sendcampaign.create_tables('nowhere');
SELECT sendcampaign.create_tables('No "where"');
SELECT sendcampaign.create_tables(NULL);
\set VERBOSITY terse
CREATE ROLE regress_sendcampaign;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO regress_sendcampaign;
GRANT USAGE ON SCHEMA sendcampaign TO regress_sendcampaign;
CREATE SCHEMA closed;
SET ROLE regress_sendcampaign;
SELECT sendcampaign.create_tables('closed');
RESET ROLE;
\set VERBOSITY default

-- it is the caller who owns them
GRANT CREATE, USAGE ON SCHEMA closed TO regress_sendcampaign;
SET ROLE regress_sendcampaign;
SELECT sendcampaign.create_tables('closed');
RESET ROLE;
SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'closed';

-- the tables are not part of the extension
DROP EXTENSION sendcampaign;
SELECT count(DISTINCT (table_schema, table_name)) AS tables FROM app_columns;

\set VERBOSITY terse
SET client_min_messages = warning;
DROP VIEW app_columns;
DROP SCHEMA "Other Schema", closed CASCADE;
DROP TABLE groups, ac_lists, ac_campaigns, ac_list_users, ac_background_jobs;
DROP ROLE regress_sendcampaign;
