/* sendcampaign--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION sendcampaign" to load this file. \quit

-- names and operators below are PostgreSQL's own, whoever may create others
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE SCHEMA sendcampaign;
COMMENT ON SCHEMA sendcampaign IS
'SMS campaigns: runs, messages, and what to do with them';

/*
 * Tables. The worker writes them, as the extension's owner; roles read them
 * through row-level security.
 */

CREATE TABLE sendcampaign.run (
    job_id bigint PRIMARY KEY,
    campaign_id bigint NOT NULL,
    role name NOT NULL,
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'paused', 'completed', 'failed', 'cancelled')),
    total bigint,
    sent bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    in_doubt bigint NOT NULL DEFAULT 0,
    queued_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    error text,
    schema name NOT NULL,
    list_id bigint,
    message text,
    base_url text,
    system_identifier numeric NOT NULL
        DEFAULT (pg_catalog.pg_control_system()).system_identifier::numeric,
    database oid NOT NULL,
    history text,
    read_back boolean NOT NULL DEFAULT false,
    next_at timestamptz,
    test_phone text,
    paused_from text CHECK (paused_from IN ('queued', 'running'))
);
COMMENT ON TABLE sendcampaign.run IS 'One row for each background job that sends a campaign';
COMMENT ON COLUMN sendcampaign.run.job_id IS 'Background job, in the application''s table ac_background_jobs';
COMMENT ON COLUMN sendcampaign.run.campaign_id IS 'Campaign, in the application''s table ac_campaigns';
COMMENT ON COLUMN sendcampaign.run.role IS 'Role with whose rights the application''s tables are used';
COMMENT ON COLUMN sendcampaign.run.state IS 'queued, running, paused, completed, failed or cancelled';
COMMENT ON COLUMN sendcampaign.run.total IS 'Recipients, fixed when the run starts; null before';
COMMENT ON COLUMN sendcampaign.run.sent IS 'Messages that Twilio took';
COMMENT ON COLUMN sendcampaign.run.failed IS 'Messages that Twilio refused';
COMMENT ON COLUMN sendcampaign.run.skipped IS 'Recipients to whom nothing was sent, for a reason given in sendcampaign.message';
COMMENT ON COLUMN sendcampaign.run.in_doubt IS 'Messages of which nobody can tell whether Twilio took them';
COMMENT ON COLUMN sendcampaign.run.queued_at IS 'When send_campaign() was called';
COMMENT ON COLUMN sendcampaign.run.started_at IS 'When a worker took it up first';
COMMENT ON COLUMN sendcampaign.run.finished_at IS 'When it ended, however it did';
COMMENT ON COLUMN sendcampaign.run.error IS 'Why it failed, is paused or cannot go on, or a summary of what failed';
COMMENT ON COLUMN sendcampaign.run.schema IS 'Schema of the application''s tables, as set when it was queued';
COMMENT ON COLUMN sendcampaign.run.list_id IS 'List, in the application''s table ac_lists, as of the start';
COMMENT ON COLUMN sendcampaign.run.message IS 'Text, as of the start';
COMMENT ON COLUMN sendcampaign.run.base_url IS 'URL that the tracking link is made of, as of the start';
COMMENT ON COLUMN sendcampaign.run.system_identifier IS 'Cluster in which it was queued; it does not go on by itself in another one';

COMMENT ON COLUMN sendcampaign.run.database IS 'Database in which it was queued; likewise';
COMMENT ON COLUMN sendcampaign.run.history IS 'Timeline, and backup restored, under which it was last written; under another one, what was sent is read back from Twilio first';
COMMENT ON COLUMN sendcampaign.run.next_at IS 'Where all that are left are in their quiet hours: when the first of these end';
COMMENT ON COLUMN sendcampaign.run.test_phone IS 'Set by send_test(): one message goes there, and is counted nowhere else';
COMMENT ON COLUMN sendcampaign.run.paused_from IS 'State to which resume() brings it back; null where it was paused as it may have been sent without being known here, and resume() insists';
COMMENT ON COLUMN sendcampaign.run.read_back IS 'That has been done; what was found is in sendcampaign.witness';

-- a campaign is sent by one job at a time
CREATE UNIQUE INDEX run_campaign_unfinished ON sendcampaign.run (campaign_id, schema)
    WHERE state IN ('queued', 'running', 'paused') AND test_phone IS NULL;
CREATE INDEX run_queue ON sendcampaign.run (role)
    WHERE finished_at IS NULL AND state <> 'paused';

CREATE TABLE sendcampaign.message (
    job_id bigint NOT NULL,
    list_user_id bigint NOT NULL,
    phone text,
    status text NOT NULL,
    sid text,
    error_code integer,
    error_message text,
    segments integer,
    attempts integer NOT NULL DEFAULT 0,
    counted boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (job_id, list_user_id)
);
COMMENT ON TABLE sendcampaign.message IS 'One row for each recipient of a run with an outcome';
COMMENT ON COLUMN sendcampaign.message.job_id IS 'Background job of the run';
COMMENT ON COLUMN sendcampaign.message.list_user_id IS 'Recipient, in the application''s table ac_list_users';
COMMENT ON COLUMN sendcampaign.message.phone IS 'Number in E.164 form; as it was in the list where it was skipped';
COMMENT ON COLUMN sendcampaign.message.status IS 'sent, failed, skipped or in_doubt';
COMMENT ON COLUMN sendcampaign.message.sid IS 'Twilio''s identifier of the message';
COMMENT ON COLUMN sendcampaign.message.error_code IS 'Twilio''s error code, or the HTTP status where there was none';
COMMENT ON COLUMN sendcampaign.message.error_message IS 'Why it failed, was skipped or is in doubt';
COMMENT ON COLUMN sendcampaign.message.segments IS 'Segments that Twilio counted; null while it does not know';
COMMENT ON COLUMN sendcampaign.message.attempts IS 'Requests made';
COMMENT ON COLUMN sendcampaign.message.counted IS 'False where it was sent and sentCount could not be added, as the application raised an error; made up for when the run goes on';
COMMENT ON COLUMN sendcampaign.message.created_at IS 'When the outcome was recorded first';
COMMENT ON COLUMN sendcampaign.message.updated_at IS 'When it was recorded last';

CREATE TABLE sendcampaign.batch (
    job_id bigint NOT NULL,
    number integer NOT NULL,
    list_user_ids bigint[] NOT NULL,
    duplicates bigint[],
    due timestamptz,
    PRIMARY KEY (job_id, number)
);
COMMENT ON TABLE sendcampaign.batch IS 'Recipients of a run that are still to be claimed, many a row';
COMMENT ON COLUMN sendcampaign.batch.duplicates IS 'Those of them whose phone an earlier one of the list has, too';
COMMENT ON COLUMN sendcampaign.batch.due IS 'When their quiet hours end; null where they may be claimed at once';

CREATE TABLE sendcampaign.claim (
    job_id bigint NOT NULL,
    number integer NOT NULL,
    list_user_ids bigint[] NOT NULL,
    phones text[] NOT NULL,
    account text NOT NULL,
    senders text[] NOT NULL,
    claimed_at timestamptz NOT NULL,
    twilio_time bigint NOT NULL,
    texts text[],
    PRIMARY KEY (job_id, number)
);
-- they live for a second: not worth compressing
ALTER TABLE sendcampaign.claim ALTER list_user_ids SET STORAGE EXTERNAL,
    ALTER phones SET STORAGE EXTERNAL, ALTER texts SET STORAGE EXTERNAL;
COMMENT ON TABLE sendcampaign.claim IS
'Recipients to whom a message may be on its way; those without a row in sendcampaign.message when the worker ends are in doubt';

CREATE TABLE sendcampaign.witness (
    job_id bigint NOT NULL,
    sid text NOT NULL,
    phone text NOT NULL,
    list_user_id bigint NOT NULL,
    segments integer NOT NULL,
    text_hash bigint NOT NULL,
    PRIMARY KEY (job_id, sid)
);
CREATE INDEX witness_list_user ON sendcampaign.witness (job_id, list_user_id);
CREATE INDEX witness_phone ON sendcampaign.witness (job_id, phone);
COMMENT ON TABLE sendcampaign.witness IS
'Messages of a run that Twilio has, read back after commits may have been lost; list_user_id is 0 where the text does not tell';

CREATE TABLE sendcampaign.opt_out (
    phone text NOT NULL,
    schema name,
    group_id bigint,
    reason text,
    role name NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE NULLS NOT DISTINCT (phone, schema, group_id)
);
COMMENT ON TABLE sendcampaign.opt_out IS 'Phones that get no more messages: of one group, or at all';
COMMENT ON COLUMN sendcampaign.opt_out.phone IS 'Number in E.164 form';
COMMENT ON COLUMN sendcampaign.opt_out.schema IS 'Schema of the application''s tables that the group is in; null for all';
COMMENT ON COLUMN sendcampaign.opt_out.group_id IS 'Group whose messages are not wanted; null for all';
COMMENT ON COLUMN sendcampaign.opt_out.reason IS 'What was said, or Twilio''s error';
COMMENT ON COLUMN sendcampaign.opt_out.role IS 'By whom it was written down';
COMMENT ON COLUMN sendcampaign.opt_out.created_at IS 'When';

SELECT pg_catalog.pg_extension_config_dump('sendcampaign.run', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.message', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.batch', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.claim', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.witness', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.opt_out', '');

/*
 * Rights: a role sees what roles have sent that it is a member of.
 */

ALTER TABLE sendcampaign.run ENABLE ROW LEVEL SECURITY;
ALTER TABLE sendcampaign.message ENABLE ROW LEVEL SECURITY;
ALTER TABLE sendcampaign.opt_out ENABLE ROW LEVEL SECURITY;

CREATE POLICY run_of_member ON sendcampaign.run FOR SELECT USING (
    EXISTS (SELECT FROM pg_catalog.pg_roles r
            WHERE r.rolname OPERATOR(pg_catalog.=) run.role
              AND pg_catalog.pg_has_role(r.oid, 'MEMBER')));
CREATE POLICY message_of_member ON sendcampaign.message FOR SELECT USING (
    job_id IN (SELECT r.job_id FROM sendcampaign.run r));

CREATE POLICY opt_out_of_member ON sendcampaign.opt_out FOR SELECT USING (
    EXISTS (SELECT FROM pg_catalog.pg_roles r
            WHERE r.rolname OPERATOR(pg_catalog.=) opt_out.role
              AND pg_catalog.pg_has_role(r.oid, 'MEMBER')));

GRANT SELECT ON sendcampaign.run, sendcampaign.message, sendcampaign.opt_out TO PUBLIC;

/*
 * What people look at.
 */

CREATE FUNCTION sendcampaign.bar(share double precision, width integer)
RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- block characters where the encoding has them; "+ 0 * width" keeps chr()
    -- from being evaluated where it has not
    SELECT repeat(CASE getdatabaseencoding() WHEN 'UTF8' THEN chr(9608 + 0 * width) ELSE '#' END, b.filled)
        || repeat(CASE getdatabaseencoding() WHEN 'UTF8' THEN chr(9617 + 0 * width) ELSE '.' END, width - b.filled)
    FROM (SELECT floor(greatest(0, least(1, share)) * width)::integer) b(filled)
$$;
COMMENT ON FUNCTION sendcampaign.bar(double precision, integer) IS
'A bar of that many characters, filled to a share between 0 and 1';

CREATE VIEW sendcampaign.progress WITH (security_invoker = true, security_barrier = true) AS
SELECT p.job_id,
       p.campaign_id,
       p.state,
       sendcampaign.bar(p.share, 20)
           || pg_catalog.lpad(pg_catalog.floor(p.share * 100)::text || '%', 5) AS progress,
       p.total,
       p.sent,
       p.failed,
       p.skipped,
       p.in_doubt,
       CASE WHEN p.seconds > 0 THEN (p.done / p.seconds)::numeric(12, 1) END AS per_second,
       CASE WHEN p.state = 'running' AND p.done > 0 AND p.next_at IS NULL
            THEN pg_catalog.date_trunc('second', pg_catalog.make_interval(
                     secs => p.seconds * (p.total - p.done) / p.done)) END AS time_left,
       p.next_at,
       p.error
FROM (SELECT r.job_id, r.campaign_id, r.state, r.total, r.sent, r.failed, r.skipped, r.in_doubt, r.error,
             CASE WHEN r.state = 'running' AND r.next_at > pg_catalog.now() THEN r.next_at END AS next_at,
             r.sent + r.failed + r.skipped + r.in_doubt AS done,
             CASE WHEN r.total > 0
                  THEN (r.sent + r.failed + r.skipped + r.in_doubt)::double precision / r.total
                  WHEN r.state = 'completed' THEN 1 ELSE 0 END AS share,
             extract(epoch FROM coalesce(r.finished_at, pg_catalog.clock_timestamp())
                                - r.started_at)::double precision AS seconds
      FROM sendcampaign.run r) p
ORDER BY p.job_id DESC;
COMMENT ON VIEW sendcampaign.progress IS
'Runs for people to look at, newest first; reads well under \watch';
GRANT SELECT ON sendcampaign.progress TO PUBLIC;

/*
 * What people call.
 */

CREATE FUNCTION @extschema@.send_campaign(campaign_id bigint, job_id bigint DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'send_campaign'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.send_campaign(bigint, bigint) IS
'Queues a campaign; it is sent once the transaction commits. Returns the background job, which is created where none is given';

/*
 * PostgreSQL prefers a function that fits the arguments of a call exactly: of
 * somebody else's send_campaign(integer) and ours, send_campaign(1) would be
 * theirs. So all that fit better are taken. An argument of unknown type is
 * text then. Whoever may call the one above may call these.
 */
DO $do$
DECLARE
    types text[] := '{smallint,integer,bigint,text}';
    arguments text;
BEGIN
    FOR arguments IN
        SELECT format('campaign_id %s', c) FROM unnest(types) c WHERE c <> 'bigint'
        UNION ALL
        SELECT format('campaign_id %s, job_id %s', c, j) FROM unnest(types) c, unnest(types) j
        WHERE (c, j) <> ('bigint', 'bigint')
    LOOP
        EXECUTE format($$
            CREATE FUNCTION @extschema@.send_campaign(%1$s) RETURNS bigint
                AS 'MODULE_PATHNAME', 'sendcampaign_overload'
                LANGUAGE C VOLATILE PARALLEL UNSAFE;
            COMMENT ON FUNCTION @extschema@.send_campaign(%1$s) IS
                'The same as send_campaign(bigint, bigint), for arguments of these types'$$, arguments);
    END LOOP;
END
$do$;

CREATE FUNCTION sendcampaign.wake()
RETURNS integer
AS 'MODULE_PATHNAME', 'sendcampaign_wake'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.wake() IS
'Has unfinished runs go on; returns the number of workers that were started or woken';

CREATE FUNCTION sendcampaign.settle(job_id bigint, list_user_id bigint, sent boolean)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_settle'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.settle(bigint, bigint, boolean) IS
'Settles a message in doubt by hand: it was sent, or it was not';

CREATE FUNCTION sendcampaign.pause(job_id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_pause'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.pause(bigint) IS
'Pauses a run: from the commit on nothing more is sent, until it is resumed';

CREATE FUNCTION sendcampaign.cancel(job_id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_cancel'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.cancel(bigint) IS
'Cancels a run: from the commit on nothing more is sent, and those to whom nothing was sent are skipped';

CREATE FUNCTION sendcampaign.resume(job_id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_resume'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.resume(bigint) IS
'Has a paused run go on where it stopped';

CREATE FUNCTION sendcampaign.opt_out(phone text, group_id bigint DEFAULT NULL, reason text DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sendcampaign_opt_out'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.opt_out(text, bigint, text) IS
'A phone gets no more messages, of one group or at all; false where that was so already';

CREATE FUNCTION sendcampaign.opt_in(phone text, group_id bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sendcampaign_opt_in'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.opt_in(text, bigint) IS
'A phone gets messages again, of one group or of all; false where it had not opted out';

CREATE SEQUENCE sendcampaign.test_job_id AS bigint INCREMENT -1 MAXVALUE -1 START -1;
COMMENT ON SEQUENCE sendcampaign.test_job_id IS
'Test messages have runs with negative numbers: no background job stands for them';
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.test_job_id', '');

CREATE FUNCTION sendcampaign.preview(campaign_id bigint, "limit" bigint DEFAULT 10)
RETURNS TABLE (list_user_id bigint, phone text, sender text, text text, encoding text,
    units integer, segments integer, skipped text, deferred_until timestamptz)
AS 'MODULE_PATHNAME', 'sendcampaign_preview'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.preview(bigint, bigint) IS
'What the first recipients of a campaign would get now, and why some would get nothing; sends nothing';

CREATE FUNCTION sendcampaign.estimate(campaign_id bigint, price_per_segment numeric DEFAULT NULL,
    OUT recipients bigint, OUT messages bigint, OUT deferred bigint, OUT duplicates bigint,
    OUT opted_out bigint, OUT without_phone bigint, OUT invalid_phone bigint,
    OUT without_value bigint, OUT expired bigint, OUT segments bigint, OUT segments_gsm7 bigint,
    OUT segments_ucs2 bigint, OUT messages_ucs2 bigint, OUT ucs2_characters text,
    OUT cost numeric, OUT duration interval)
RETURNS record
AS 'MODULE_PATHNAME', 'sendcampaign_estimate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.estimate(bigint, numeric) IS
'What a campaign would come to if it were sent now: messages, segments, cost, time; sends nothing';

CREATE FUNCTION sendcampaign.send_test(campaign_id bigint, phone text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_send_test'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.send_test(bigint, text) IS
'Sends the first recipient''s message to a phone of the author''s; returns the number of its run, which is negative';

CREATE FUNCTION sendcampaign.retry_failed(job_id bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_retry_failed'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.retry_failed(bigint) IS
'Sends once more those failed messages of a completed run that Twilio did not refuse for good; returns how many';

CREATE PROCEDURE sendcampaign.wait(job_id bigint, timeout interval DEFAULT NULL)
AS 'MODULE_PATHNAME', 'sendcampaign_wait'
LANGUAGE C;
COMMENT ON PROCEDURE sendcampaign.wait(bigint, interval) IS
'Returns when a run has ended; an error if that takes longer than the time-out';

CREATE FUNCTION sendcampaign.forget(before timestamptz)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_forget'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.forget(timestamptz) IS
'Deletes runs that ended before a time, with their messages; returns how many. A job whose run is forgotten can be sent again';

CREATE FUNCTION sendcampaign.forget_recipient(phone text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_forget_recipient'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.forget_recipient(text) IS
'Erases a phone number from messages, and what belongs to it; returns how many rows. What was counted stays';

CREATE FUNCTION sendcampaign.segments(
    message text, OUT encoding text, OUT units integer, OUT segments integer)
AS 'MODULE_PATHNAME', 'sendcampaign_segments'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.segments(text) IS
'What a text costs: the segments it is sent in, its GSM-7 septets or UTF-16 units, and which of the two';

CREATE FUNCTION sendcampaign.version()
RETURNS text
AS 'MODULE_PATHNAME', 'sendcampaign_version'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.version() IS 'Version of the library';

CREATE FUNCTION sendcampaign.create_tables(schema name DEFAULT 'public')
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing record;
BEGIN
    FOR missing IN
        SELECT t.name, t.columns
        FROM (VALUES
            (1, 'groups', 'name text, configuration jsonb'),
            (2, 'ac_lists', 'data jsonb, user_id integer, group_id integer,'
                            ' community_id integer, post_id integer'),
            (3, 'ac_campaigns', 'data jsonb, user_id integer, ac_list_id integer'),
            (4, 'ac_list_users', 'data jsonb, user_id integer, ac_list_id integer'),
            (5, 'ac_background_jobs', 'progress integer DEFAULT 5, error text,'
                                      ' data jsonb, internal_data jsonb')
        ) t(n, name, columns)
        WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                          WHERE s.nspname = create_tables.schema AND c.relname = t.name)
        ORDER BY t.n
    LOOP
        EXECUTE format('CREATE TABLE %I.%I (id serial PRIMARY KEY, %s,'
                       ' created_at timestamptz NOT NULL DEFAULT now(),'
                       ' updated_at timestamptz NOT NULL DEFAULT now())',
                       create_tables.schema, missing.name, missing.columns);
        IF missing.name = 'ac_list_users' THEN
            EXECUTE format('CREATE INDEX ON %I.ac_list_users (ac_list_id)', create_tables.schema);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION sendcampaign.create_tables(name) IS
'Creates those of the application''s tables that a schema does not have';
