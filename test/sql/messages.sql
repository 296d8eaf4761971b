-- Messages that SQL alone can provoke, each with its detail and hint; those of
-- workers are in the TAP tests.  No worker is started here.

-- without the extension
CREATE FUNCTION wake() RETURNS integer AS '$libdir/sendcampaign', 'sendcampaign_wake' LANGUAGE C;
SELECT wake();
DROP FUNCTION wake();

CREATE EXTENSION sendcampaign;
CREATE ROLE regress_app LOGIN;
CREATE ROLE regress_other LOGIN;
CREATE ROLE regress_boss SUPERUSER;
GRANT USAGE ON SCHEMA sendcampaign TO regress_app, regress_other;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO regress_app, regress_other;
GRANT EXECUTE ON FUNCTION send_campaign TO regress_app, regress_other;
CREATE SCHEMA app AUTHORIZATION regress_app;
SET search_path = app, public;
SET sendcampaign.schema = 'app';
\set SHOW_CONTEXT never
CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';

-- a campaign that can be sent
SET ROLE regress_app;
SELECT sendcampaign.create_tables('app');
INSERT INTO groups (configuration) VALUES ('{"twilioAccountSid": "AC1",
    "twilioAuthToken": "secret", "twilioFromSmsNumber": "+15550009999"}');
INSERT INTO ac_lists (group_id) VALUES (1);
INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+15550000001"}');
INSERT INTO ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Hi"}');
SELECT text FROM sendcampaign.preview(1);

-- the campaign and its list
BEGIN;
UPDATE ac_campaigns SET data = '{}';
SAVEPOINT s;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK TO s;
ALTER TABLE ac_campaigns ADD message text;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE ac_campaigns SET data = '{"message": "Dear {{name}}, {name}}"}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE ac_campaigns SET data = jsonb_build_object('message', repeat('x', 16001));
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE ac_campaigns SET data = jsonb_build_object('message',
    (SELECT string_agg('{{' || to_hex(i) || '}}', '') FROM generate_series(1, 2001) i));
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE ac_campaigns SET ac_list_id = NULL;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE ac_campaigns SET ac_list_id = 99;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE ac_campaigns SET data = data || '{"sendUntil": "tomorrow"}';
SELECT text IS NOT NULL AS sent FROM sendcampaign.preview(1);
UPDATE ac_campaigns SET data = data || '{"sendUntil": "one day"}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_campaigns ADD deleted boolean DEFAULT true;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_lists ADD deleted boolean DEFAULT true;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
ALTER TABLE groups ADD deleted boolean DEFAULT true;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE ac_lists SET group_id = NULL;
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;

-- the group's configuration
BEGIN;
UPDATE groups SET configuration = '{}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration - 'twilioAuthToken';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration - 'twilioFromSmsNumber';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration ||
    jsonb_build_object('twilioAuthToken', repeat('x', 1001));
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || jsonb_build_object('twilioFromSmsNumber',
    (SELECT jsonb_agg('+1555' || i) FROM generate_series(1000000, 1001000) i));
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || '{"twilioSegmentsPerSecond": "fast"}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || '{"quietHours": {"from": "9pm", "to": "8am"}}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration ||
    '{"quietHours": {"from": "00:00", "to": "24:00"}}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || '{"timeZone": "Mars/Base"}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration ||
    '{"quietHours": {"from": "00:00", "to": "00:01"}}';
SELECT text FROM sendcampaign.preview(1);
UPDATE ac_list_users SET data = data || '{"timeZone": "Mars/Base"}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || '{"twilioStatusCallback": "http://example.org"}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || '{"twilioInboundUrl": "https://user@example.org"}';
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || jsonb_build_object('stopWords', repeat('x', 101));
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
UPDATE groups SET configuration = configuration || jsonb_build_object('startWords',
    (SELECT jsonb_agg(i) FROM generate_series(1, 101) i));
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;

-- what is posted to a web server
SELECT sendcampaign.receive('https://example.org/', 'x', 'AccountSid=AC1&MessageSid=SM1');
SELECT sendcampaign.receive(NULL, NULL, NULL);

-- why list users are skipped
BEGIN;
UPDATE ac_list_users SET data = '{}';
SELECT skipped FROM sendcampaign.preview(1);
UPDATE ac_list_users SET data = '{"sms": "555"}';
SELECT skipped FROM sendcampaign.preview(1);
UPDATE ac_list_users SET data = '{"sms": "+15550000001", "name": 1}';
UPDATE ac_campaigns SET data = '{"message": "Dear {{name}} {{title}}"}';
SELECT skipped FROM sendcampaign.preview(1);
UPDATE ac_list_users SET data = jsonb_build_object('sms', '+15550000001', 'name', repeat('x', 1601));
SELECT skipped FROM sendcampaign.preview(1);
UPDATE ac_list_users SET data = jsonb_build_object('sms', '+15550000001', 'name', repeat('x', 1600));
UPDATE ac_campaigns SET data = jsonb_build_object('message', repeat('{{name}}', 50));
SELECT skipped FROM sendcampaign.preview(1);
UPDATE ac_campaigns SET data = '{"message": "Hi", "sendUntil": "2020-01-01"}';
SELECT skipped FROM sendcampaign.preview(1);
UPDATE ac_campaigns SET data = '{"message": "Hi"}';
ALTER TABLE ac_list_users ADD deleted boolean DEFAULT true;
SELECT skipped FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
INSERT INTO ac_list_users (ac_list_id, data) VALUES (1, '{"sms": "+1 555 000 0001"}');
SELECT skipped FROM sendcampaign.preview(1);
ROLLBACK;

-- send_test()
BEGIN;
UPDATE ac_campaigns SET data = '{"message": "Dear {{name}}"}';
SELECT sendcampaign.send_test(1, '+15550000002');
ROLLBACK;
BEGIN;
DELETE FROM ac_list_users;
SELECT sendcampaign.send_test(1, '+15550000002');
ROLLBACK;
SELECT sendcampaign.send_test(1, '555');

-- the tables
BEGIN;
ALTER TABLE ac_list_users ALTER data TYPE text;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_campaigns DROP ac_list_id;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_campaigns DROP data;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_list_users ADD "sentCount" integer GENERATED ALWAYS AS (1) STORED;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_lists ADD key uuid, DROP id;
ALTER TABLE ac_lists RENAME key TO id;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_list_users RENAME TO users;
CREATE VIEW ac_list_users AS SELECT DISTINCT id, ac_list_id, data FROM users;
CREATE FUNCTION app.count() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER count INSTEAD OF UPDATE ON ac_list_users
FOR EACH ROW EXECUTE FUNCTION app.count();
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
CREATE RULE count AS ON UPDATE TO ac_list_users DO INSTEAD NOTHING;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_list_users RENAME TO users;
CREATE VIEW ac_list_users AS SELECT * FROM users;
REVOKE UPDATE ON users FROM regress_app;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_list_users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY look ON ac_list_users FOR SELECT USING (true);
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
ALTER TABLE ac_lists DROP CONSTRAINT ac_lists_pkey;
INSERT INTO ac_lists (id, group_id) VALUES (1, 1);
SELECT text FROM sendcampaign.preview(1);
ROLLBACK;
BEGIN;
CREATE TRIGGER suppress BEFORE INSERT ON ac_background_jobs
    FOR EACH ROW EXECUTE FUNCTION suppress();
SELECT send_campaign(1);
ROLLBACK;
SELECT sendcampaign.opt_outs(99);

-- rights
SET ROLE regress_other;
SELECT send_campaign(1);
RESET ROLE;
BEGIN;
GRANT USAGE ON SCHEMA app TO regress_other;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO regress_other;
GRANT INSERT, UPDATE ON ac_background_jobs TO regress_other;
GRANT UPDATE (id) ON ac_list_users TO regress_other;
SET LOCAL ROLE regress_other;
SELECT send_campaign(1);
ROLLBACK;
SET ROLE regress_app;
SELECT sendcampaign.opt_out('+15550000001');
SELECT sendcampaign.opt_out('555', 1);
RESET ROLE;
BEGIN;
GRANT INSERT ON sendcampaign.opt_out TO regress_other;
SET LOCAL ROLE regress_other;
SELECT sendcampaign.opt_out('+15550000001');
SET LOCAL ROLE regress_app;
SAVEPOINT s;
SELECT sendcampaign.opt_in('+15550000001');
ROLLBACK TO s;
SELECT sendcampaign.opt_out('+15550000001', 1);
SELECT sendcampaign.opt_in('+15550000001', 1);
RESET ROLE;
GRANT USAGE ON SCHEMA app TO regress_other;
GRANT SELECT ON ac_lists, groups TO regress_other;
SET LOCAL ROLE regress_app;
SELECT sendcampaign.opt_out('+15550000003', 1);
SET LOCAL ROLE regress_other;
SELECT sendcampaign.opt_out('+15550000003', 1);
SELECT sendcampaign.opt_in('+15550000003', 1);
ROLLBACK;

-- code of others
SET ROLE regress_boss;
CREATE FUNCTION public.regress_gain() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
ALTER FUNCTION public.regress_gain() OWNER TO regress_other;
BEGIN;
CREATE TRIGGER gain BEFORE UPDATE ON ac_list_users
    FOR EACH ROW EXECUTE FUNCTION public.regress_gain();
ALTER TABLE ac_list_users OWNER TO CURRENT_USER;
SELECT send_campaign(1);
ROLLBACK;
BEGIN;
CREATE TRIGGER gain BEFORE UPDATE ON ac_list_users
    FOR EACH ROW EXECUTE FUNCTION public.regress_gain();
CREATE FUNCTION app.send() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT send_campaign(1)';
ALTER FUNCTION app.send() OWNER TO regress_app;
SELECT app.send();
ROLLBACK;

-- send_campaign()
SET ROLE regress_app;
SELECT send_campaign(NULL);
SELECT send_campaign(99);
SELECT send_campaign(1, 99);
INSERT INTO ac_campaigns (ac_list_id, data) VALUES (1, '{"message": "Ho"}');
BEGIN;
SELECT send_campaign(1, NULL) AS job \gset
SELECT sendcampaign.pause(:job);
SELECT send_campaign(1, :job) = :job AS same;
SAVEPOINT s;
SELECT send_campaign(2, :job);
ROLLBACK TO s;
SELECT send_campaign(1);
ROLLBACK TO s;
SELECT setval('ac_background_jobs_id_seq', :job, false);
DELETE FROM ac_background_jobs;
SELECT send_campaign(2);
ROLLBACK;
BEGIN;
SET LOCAL ROLE regress_boss;
SET LOCAL sendcampaign.enabled = off;
SELECT send_campaign(1) > 0 AS queued;
ROLLBACK;
BEGIN READ ONLY;
SELECT send_campaign(1);
ROLLBACK;

-- runs
SELECT sendcampaign.cancel(99);
BEGIN;
INSERT INTO ac_background_jobs (id) VALUES (1000);
SELECT send_campaign(1, 1000);
SAVEPOINT s;
SELECT sendcampaign.resume(1000);
ROLLBACK TO s;
SELECT sendcampaign.settle(1000, 1, true);
ROLLBACK TO s;
SELECT sendcampaign.retry_failed(1000);
ROLLBACK TO s;
SELECT sendcampaign.cancel(1000);
SELECT state, error FROM sendcampaign.run;
SAVEPOINT s;
SELECT sendcampaign.cancel(1000);
ROLLBACK TO s;
SELECT sendcampaign.pause(1000);
ROLLBACK TO s;
SET ROLE regress_boss;
UPDATE sendcampaign.run_data SET state = 'failed';
SET LOCAL ROLE regress_app;
SELECT sendcampaign.retry_failed(1000);
ROLLBACK TO s;
SET ROLE regress_boss;
UPDATE sendcampaign.run_data SET state = 'completed', total = 1;
SET LOCAL ROLE regress_app;
SELECT sendcampaign.retry_failed(1000);
ROLLBACK;

-- settle()
BEGIN;
INSERT INTO ac_background_jobs (id) VALUES (1000);
SELECT send_campaign(1, 1000);
SET ROLE regress_boss;
UPDATE sendcampaign.run_data SET state = 'completed', total = 3, in_doubt = 3, list_id = 1,
    list_users = 'ac_list_users'::regclass, finished_at = now();
INSERT INTO sendcampaign.message_data (run_id, list_user_id, status, error_message)
SELECT id, 1, 'in_doubt', 'no answer' FROM sendcampaign.run_data;
SAVEPOINT s;
CREATE TRIGGER suppress BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION suppress();
SELECT sendcampaign.settle(1000, 1, true);
SELECT error FROM sendcampaign.run;
ROLLBACK TO s;
ALTER TABLE ac_list_users RENAME TO users;
CREATE TABLE ac_list_users (LIKE users INCLUDING ALL);
ALTER TABLE ac_list_users OWNER TO regress_app;
SET LOCAL ROLE regress_app;
SELECT sendcampaign.settle(1000, 1, true);
SELECT error FROM sendcampaign.run;
ROLLBACK TO s;
-- as a superuser, for a role that is gone, and whose tables have code of others
UPDATE sendcampaign.run_data SET role_oid = 1;
CREATE TRIGGER gain BEFORE UPDATE ON ac_list_users
    FOR EACH ROW EXECUTE FUNCTION public.regress_gain();
SELECT sendcampaign.settle(1000, 1, true);
ROLLBACK TO s;
UPDATE sendcampaign.run_data SET role_oid = 1;
CREATE TRIGGER gain BEFORE UPDATE ON ac_list_users
    FOR EACH ROW EXECUTE FUNCTION public.regress_gain();
ALTER TABLE ac_list_users OWNER TO CURRENT_USER;
SELECT sendcampaign.settle(1000, 1, true);
ROLLBACK;

-- tables that are gone in the middle of a call
BEGIN;
SET LOCAL ROLE regress_app;
INSERT INTO ac_background_jobs (id) VALUES (1000);
SELECT send_campaign(1, 1000);
SET LOCAL ROLE regress_boss;
UPDATE sendcampaign.run_data SET state = 'completed', total = 1, in_doubt = 1, list_id = 1,
    list_users = 'ac_list_users'::regclass, finished_at = now();
INSERT INTO sendcampaign.message_data (run_id, list_user_id, status)
SELECT id, 1, 'in_doubt' FROM sendcampaign.run_data;
SAVEPOINT s;
SET LOCAL ROLE regress_app;
CREATE FUNCTION drop_jobs() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN DROP TABLE app.ac_background_jobs; RETURN NEW; END';
CREATE TRIGGER drop_jobs BEFORE UPDATE ON ac_list_users FOR EACH ROW EXECUTE FUNCTION drop_jobs();
SELECT sendcampaign.settle(1000, 1, true);
ROLLBACK TO s;
ALTER TABLE groups OWNER TO regress_boss;
ALTER TABLE ac_lists OWNER TO regress_boss;
ALTER TABLE ac_campaigns OWNER TO regress_boss;
ALTER TABLE ac_list_users OWNER TO regress_boss;
ALTER TABLE ac_background_jobs OWNER TO regress_boss;
UPDATE sendcampaign.run_data SET role_oid = 1;
CREATE FUNCTION rename_lists() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN ALTER TABLE app.ac_lists RENAME TO lists; RETURN NEW; END';
CREATE TRIGGER rename_lists BEFORE UPDATE ON ac_list_users
    FOR EACH ROW EXECUTE FUNCTION rename_lists();
SELECT sendcampaign.settle(1000, 1, true);
ROLLBACK;

-- pause(), where the job cannot be told
SET ROLE regress_app;
CREATE FUNCTION app.fail() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'no' USING DETAIL = 'Not today.'; END$$;
BEGIN;
INSERT INTO ac_background_jobs (id) VALUES (1000);
SELECT send_campaign(1, 1000);
CREATE TRIGGER fail BEFORE UPDATE ON ac_background_jobs
    FOR EACH ROW EXECUTE FUNCTION app.fail();
SELECT sendcampaign.pause(1000);
ROLLBACK;

-- runs that come from elsewhere
BEGIN;
INSERT INTO ac_background_jobs (id) VALUES (1000);
SELECT send_campaign(1, 1000);
SET ROLE regress_boss;
UPDATE sendcampaign.run_data SET state = 'paused', paused_from = 'running', total = 2,
    list_id = 1, list_users = 'ac_list_users'::regclass, system_identifier = 1;
INSERT INTO sendcampaign.claim
    (run_id, number, list_user_ids, phones, account, senders, claimed_at, twilio_time)
SELECT id, 1, '{1}', '{+15550000001}', 'AC1', '{+15550009999}', now(), 0 FROM sendcampaign.run_data;
SAVEPOINT s;
UPDATE sendcampaign.run_data SET role = 'nobody';
SELECT sendcampaign.resume(1000);
ROLLBACK TO s;
CREATE TRIGGER gain BEFORE UPDATE ON ac_list_users
    FOR EACH ROW EXECUTE FUNCTION public.regress_gain();
SELECT sendcampaign.resume(1000);
ROLLBACK TO s;
SELECT sendcampaign.cancel(1000);
SELECT state, error FROM sendcampaign.run;
SELECT list_user_id, status, error_message FROM sendcampaign.message;
ROLLBACK;

-- forget_recipient()
BEGIN;
INSERT INTO ac_background_jobs (id) VALUES (1000);
SELECT send_campaign(1, 1000);
SET LOCAL ROLE regress_boss;
SAVEPOINT s;
INSERT INTO sendcampaign.claim
    (run_id, number, list_user_ids, phones, account, senders, claimed_at, twilio_time)
SELECT id, 1, '{1}', '{+15550000001}', 'AC1', '{+15550009999}', now(), 0 FROM sendcampaign.run_data;
SELECT sendcampaign.forget_recipient('+15550000001');
ROLLBACK TO s;
INSERT INTO sendcampaign.read_back_message (run_id, sid, phone, list_user_id, segments, text_hash)
SELECT id, 'SM1', '+15550000001', 1, 1, 0 FROM sendcampaign.run_data;
SELECT sendcampaign.forget_recipient('+15550000001');
ROLLBACK;

-- wait()
CALL sendcampaign.wait(NULL);
BEGIN;
CALL sendcampaign.wait(1);
ROLLBACK;
SET ROLE regress_boss;
INSERT INTO sendcampaign.run_data (schema, job_id, campaign_id, role, role_oid, state, database)
SELECT 'app', 1000, 1, rolname, oid, 'paused', 1 FROM pg_roles WHERE rolname = 'regress_app';
CALL sendcampaign.wait(1000, '0');
DELETE FROM sendcampaign.run_data;

-- events and results
SELECT sendcampaign.track(1, 1, NULL);
SELECT sendcampaign.track(1, 1, 'Open');
SELECT sendcampaign.summary(4711);
BEGIN;
DELETE FROM sendcampaign.link_secret;
SELECT sendcampaign.track(1, 1, 'open', 'x');
ROLLBACK;

-- settings
SET sendcampaign.api_url = 'http://example.org';
SET sendcampaign.segments_per_second = 0.001;

-- create_tables()
SELECT sendcampaign.create_tables(NULL);
SELECT sendcampaign.create_tables('nowhere');
SET ROLE regress_other;
SELECT sendcampaign.create_tables('app');
SET ROLE regress_boss;

-- the name "send_campaign"
GRANT CREATE ON SCHEMA public TO regress_other;
SET ROLE regress_other;
CREATE FUNCTION public.send_campaign(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
SET ROLE regress_boss;
REVOKE CREATE ON SCHEMA public FROM regress_other;

-- the function of the extension's own triggers
CREATE TABLE app.mine (written_in integer);
CREATE TRIGGER keep BEFORE INSERT ON app.mine FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();
INSERT INTO app.mine DEFAULT VALUES;
DROP TRIGGER keep ON app.mine;
CREATE TRIGGER keep AFTER INSERT ON app.mine FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();
INSERT INTO app.mine DEFAULT VALUES;
DROP TRIGGER keep ON app.mine;
CREATE TRIGGER note AFTER INSERT ON app.mine FOR EACH ROW
    EXECUTE FUNCTION sendcampaign.note_opt_out();
INSERT INTO app.mine DEFAULT VALUES;

\set VERBOSITY terse
RESET ROLE;
SET client_min_messages = warning;
DROP FUNCTION public.regress_gain();
DROP SCHEMA app CASCADE;
DROP EXTENSION sendcampaign;
CREATE FUNCTION public.send_campaign(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
\set VERBOSITY default
CREATE EXTENSION sendcampaign;
DROP FUNCTION public.send_campaign(integer);
DROP OWNED BY regress_app, regress_other;
DROP ROLE regress_app, regress_other, regress_boss;
