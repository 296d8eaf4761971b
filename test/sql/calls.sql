-- What callers are told.  Nothing here commits a run.
CREATE EXTENSION sendcampaign;
SELECT send_campaign(1);
SELECT sendcampaign.create_tables();
INSERT INTO groups (configuration) VALUES ('{}');
INSERT INTO ac_lists (group_id) VALUES (1);
INSERT INTO ac_campaigns (ac_list_id, data)
VALUES (1, '{"message": "Hi"}'), (1, '{"message": "Ho"}');
INSERT INTO ac_background_jobs DEFAULT VALUES;
CREATE ROLE regress_sendcampaign LOGIN;
GRANT EXECUTE ON FUNCTION send_campaign TO regress_sendcampaign;
GRANT USAGE ON SCHEMA sendcampaign TO regress_sendcampaign;
ALTER TABLE ac_list_users OWNER TO regress_sendcampaign;
GRANT SELECT ON groups, ac_lists, ac_campaigns TO regress_sendcampaign;
GRANT SELECT, UPDATE, INSERT ON ac_background_jobs TO regress_sendcampaign;
GRANT USAGE ON SEQUENCE ac_background_jobs_id_seq TO regress_sendcampaign;

-- arguments
SELECT send_campaign(NULL);
SELECT send_campaign(NULL, 1);
SELECT send_campaign(99);
SELECT send_campaign(1, 99);

-- queued, and what is said of it before the end of the transaction
BEGIN;
SELECT send_campaign(1, 1);
SELECT job_id, campaign_id, role, state, total, sent, failed, skipped, in_doubt,
       queued_at IS NOT NULL AS queued, started_at, finished_at, error, schema
FROM sendcampaign.run;
\pset format unaligned
SELECT job_id, campaign_id, state, progress ~ '  0%$' AS progress, total, per_second,
       time_left, error
FROM sendcampaign.progress;
\pset format aligned
SELECT send_campaign(1, 1);
SAVEPOINT s;
SELECT send_campaign(2, 1);
ROLLBACK TO s;
INSERT INTO ac_background_jobs DEFAULT VALUES;
SELECT send_campaign(1, 2);
ROLLBACK TO s;
SELECT send_campaign(2);
SELECT job_id, campaign_id, progress, j.error, data
FROM sendcampaign.run JOIN ac_background_jobs j ON j.id = job_id
ORDER BY 1;
ROLLBACK;
SELECT count(*) FROM sendcampaign.run;

-- switched off
BEGIN;
SET LOCAL sendcampaign.enabled = off;
SELECT send_campaign(1, 1);
ROLLBACK;

-- rights
REVOKE INSERT ON ac_background_jobs FROM regress_sendcampaign;
SET ROLE regress_sendcampaign;
SELECT send_campaign(1);
RESET ROLE;
REVOKE SELECT ON groups FROM regress_sendcampaign;
SET ROLE regress_sendcampaign;
SELECT send_campaign(1, 1);
RESET ROLE;
SELECT send_campaign(1, 1);
GRANT SELECT ON groups TO regress_sendcampaign;

-- tables and schema
ALTER TABLE ac_lists RENAME TO lists;
SELECT send_campaign(1, 1);
ALTER TABLE lists RENAME TO ac_lists;
SET sendcampaign.schema = 'it''s';
SELECT send_campaign(1, 1);
CREATE SCHEMA "it's";
SELECT send_campaign(1, 1);
DROP SCHEMA "it's";
RESET sendcampaign.schema;

-- transactions that write nothing
BEGIN READ ONLY;
SELECT send_campaign(1, 1);
ROLLBACK;

-- settle(), resume()
SELECT sendcampaign.settle(99, 1, true);
SELECT sendcampaign.resume(99);
BEGIN;
SELECT send_campaign(1, 1);
SAVEPOINT s;
SELECT sendcampaign.settle(1, 1, true);
ROLLBACK TO s;
SELECT sendcampaign.resume(1);
ROLLBACK TO s;
UPDATE sendcampaign.run SET state = 'paused' WHERE job_id = 1;
SELECT sendcampaign.resume(1);
SELECT state FROM sendcampaign.run;
ROLLBACK;
SELECT sendcampaign.settle(NULL, 1, true) IS NULL AS strict;

-- settings
SET sendcampaign.api_url = 'http://example.org';
SET sendcampaign.max_concurrency = 0;
SET sendcampaign.no_such_setting = 1;
SET ROLE regress_sendcampaign;
SET sendcampaign.api_url = 'https://example.org';
SET sendcampaign.enabled = off;
RESET ROLE;

\set VERBOSITY terse
SET client_min_messages = warning;
DROP EXTENSION sendcampaign;
DROP TABLE groups, ac_lists, ac_campaigns, ac_list_users, ac_background_jobs;
DROP ROLE regress_sendcampaign;
