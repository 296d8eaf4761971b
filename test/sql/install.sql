-- What the extension consists of, and what is left of it.
CREATE EXTENSION sendcampaign;
SELECT sendcampaign.version() = extversion AS version_matches
FROM pg_extension WHERE extname = 'sendcampaign';

-- its objects, and those of them that lack a comment
CREATE VIEW objects AS
SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS object
FROM pg_depend d
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'sendcampaign' AND d.deptype = 'e';
SELECT object FROM objects WHERE object ~ '^(function|view|schema)' ORDER BY object COLLATE "C";
SELECT object FROM objects WHERE obj_description(objid, classid::regclass::name) IS NULL
  AND classid <> 'pg_type'::regclass;    -- row types, members from PostgreSQL 17 on
SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'sendcampaign';
SELECT c.oid::regclass AS "table", a.attname AS column_without_comment
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid IN ('sendcampaign.run'::regclass, 'sendcampaign.message'::regclass,
    'sendcampaign.reply'::regclass, 'sendcampaign.conversation'::regclass)
  AND col_description(c.oid, a.attnum) IS NULL;

-- columns that users rely on
\pset format unaligned
SELECT table_name,
       string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns
WHERE table_schema = 'sendcampaign' AND (table_name = 'progress' OR (table_name, column_name) IN (
    VALUES ('run', 'job_id'), ('run', 'campaign_id'), ('run', 'role'), ('run', 'state'),
           ('run', 'total'), ('run', 'sent'), ('run', 'failed'), ('run', 'skipped'),
           ('run', 'in_doubt'), ('run', 'queued_at'), ('run', 'started_at'),
           ('run', 'finished_at'), ('run', 'error'),
           ('message', 'job_id'), ('message', 'list_user_id'), ('message', 'phone'),
           ('message', 'status'), ('message', 'sid'), ('message', 'error_code'),
           ('message', 'error_message'), ('message', 'segments'), ('message', 'attempts'),
           ('message', 'created_at'), ('message', 'updated_at')))
GROUP BY table_name ORDER BY table_name COLLATE "C";
\pset format aligned

-- pg_dump keeps the data of every table
SELECT c.oid::regclass AS not_dumped
FROM pg_class c, pg_extension e
WHERE c.relnamespace = 'sendcampaign'::regnamespace AND c.relkind = 'r'
  AND c.relname NOT IN ('error_code', 'link_secret')    -- which the script fills
  AND c.relname NOT IN ('opt_out_change', 'opt_out_node')    -- about the other nodes
  AND e.extname = 'sendcampaign' AND c.oid <> ALL (e.extconfig);

-- what PUBLIC may do
SELECT relname, privilege_type
FROM pg_class, aclexplode(relacl)
WHERE relnamespace = 'sendcampaign'::regnamespace AND grantee = 0
ORDER BY relname COLLATE "C", privilege_type COLLATE "C";
SELECT has_schema_privilege('pg_monitor', 'sendcampaign', 'USAGE') AS usage_for_others;
SELECT p.oid::regprocedure AS routines_of_public
FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner)))
WHERE (pronamespace = 'sendcampaign'::regnamespace OR proname = 'send_campaign') AND grantee = 0;

-- settings, as they are where nobody has set them
SELECT name, boot_val, unit, context FROM pg_settings
WHERE name LIKE 'sendcampaign.%' ORDER BY name COLLATE "C";

-- it goes without a trace, and into another schema
DROP VIEW objects;
DROP EXTENSION sendcampaign;
SELECT count(*) AS schemas FROM pg_namespace WHERE nspname = 'sendcampaign';
SELECT count(*) AS functions FROM pg_proc WHERE proname = 'send_campaign';
CREATE SCHEMA "Other Schema";
CREATE EXTENSION sendcampaign SCHEMA "Other Schema";
SELECT pronamespace::regnamespace, count(*) AS functions
FROM pg_proc
WHERE proname = 'send_campaign'
GROUP BY 1;
SELECT "Other Schema".send_campaign(NULL);
DROP EXTENSION sendcampaign;
DROP SCHEMA "Other Schema";
