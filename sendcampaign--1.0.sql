/* sendcampaign--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION sendcampaign" to load this file. \quit

-- names and operators below are PostgreSQL's own, even if others create theirs
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE SCHEMA sendcampaign;
COMMENT ON SCHEMA sendcampaign IS
'SMS campaigns: runs, messages, and functions to manage them';

/*
 * Tables.  The worker writes them, as the extension's owner, and people read
 * them through the views below.  The owner of the database may read and load
 * them, and can therefore dump and restore the database.
 */

CREATE FUNCTION sendcampaign.current_xid()
RETURNS xid
AS 'MODULE_PATHNAME', 'sendcampaign_current_xid'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.current_xid() IS
'ID of the current transaction or subtransaction, as the system column xmin will show it';

CREATE FUNCTION sendcampaign.keep_xid()
RETURNS trigger
AS 'MODULE_PATHNAME', 'sendcampaign_keep_xid'
LANGUAGE C;
COMMENT ON FUNCTION sendcampaign.keep_xid() IS
'Keeps written_in equal to xmin as long as only the extension writes the row';

CREATE SEQUENCE sendcampaign.run_id AS bigint;
COMMENT ON SEQUENCE sendcampaign.run_id IS 'Generates the ids of runs';

CREATE TABLE sendcampaign.run_data (
    id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('sendcampaign.run_id'),
    schema name NOT NULL,
    job_id bigint NOT NULL,
    campaign_id bigint NOT NULL,
    role name NOT NULL,
    role_oid oid NOT NULL,
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
    list_id bigint,
    list_users oid,
    list_users_owner oid,
    message text,
    base_url text,
    media_urls text[],
    content_sid text,
    country_code text,
    system_identifier numeric NOT NULL
        DEFAULT (pg_catalog.pg_control_system()).system_identifier::numeric,
    database oid NOT NULL,
    timeline text,
    written_in xid NOT NULL DEFAULT sendcampaign.current_xid(),
    read_back boolean NOT NULL DEFAULT false,
    may_overlap boolean NOT NULL DEFAULT false,
    next_at timestamptz,
    test_phone text,
    paused_from text CHECK (paused_from IN ('queued', 'running')),
    account text,
    group_id bigint,
    senders text[],
    delivered bigint NOT NULL DEFAULT 0,
    undelivered bigint NOT NULL DEFAULT 0,
    unconfirmed bigint NOT NULL DEFAULT 0,
    accepted_delivered bigint NOT NULL DEFAULT 0,
    accepted_undelivered bigint NOT NULL DEFAULT 0,
    last_sent_at timestamptz,
    sweep_at timestamptz,
    swept_at timestamptz,
    links_signed boolean,
    recipients text,
    recipients_list bigint,
    recipients_error text,
    UNIQUE (job_id, schema)
);
COMMENT ON TABLE sendcampaign.run_data IS 'Runs, as the extension stores them; to read them, use sendcampaign.run';
COMMENT ON COLUMN sendcampaign.run_data.role_oid IS 'OID of the role, which identifies it even if it is renamed; in another cluster, its name does';
COMMENT ON COLUMN sendcampaign.run_data.list_users IS 'OID of the list users'' table when the run was queued, and then when it started; the run does not continue by itself with another table of the same name';
COMMENT ON COLUMN sendcampaign.run_data.list_users_owner IS 'Owner of that table then, whose tables the role has chosen to use';
COMMENT ON COLUMN sendcampaign.run_data.country_code IS 'Country code of phone numbers that lack one, as the group configured it when the run started: those who share a number were found with it';
COMMENT ON COLUMN sendcampaign.run_data.system_identifier IS 'Cluster in which the run was queued; it does not continue by itself in another one';
COMMENT ON COLUMN sendcampaign.run_data.database IS 'Database in which the run was queued; it does not continue by itself in another one';
COMMENT ON COLUMN sendcampaign.run_data.timeline IS 'Timeline, and restored backup if any, under which the run was queued or last read back; under another one, what was sent is read back from Twilio first';
COMMENT ON COLUMN sendcampaign.run_data.written_in IS 'Transaction that wrote the row; if xmin is a different one, the row comes from a dump or a copy, and what was sent is read back from Twilio first';
COMMENT ON COLUMN sendcampaign.run_data.read_back IS 'Whether what was sent has been read back from Twilio; what was found is in sendcampaign.read_back_message';
COMMENT ON COLUMN sendcampaign.run_data.may_overlap IS 'Whether recipients may be in several batches and claims of the run, or already have a message, because rows of it were loaded or commits were lost; recipients are then checked for this when they are claimed';
COMMENT ON COLUMN sendcampaign.run_data.paused_from IS 'State to which resume() returns a paused run; null if it was paused because messages may have been sent that are not known here, which resume() overrides';
COMMENT ON COLUMN sendcampaign.run_data.account IS 'SID of the Twilio account to which its latest messages were sent';
COMMENT ON COLUMN sendcampaign.run_data.group_id IS 'Group of its list when these were claimed, in the application''s table groups';
COMMENT ON COLUMN sendcampaign.run_data.senders IS 'Senders that the group had when these were claimed, in case it has others when somebody answers; sorted';
COMMENT ON COLUMN sendcampaign.run_data.accepted_delivered IS 'What the two columns before were when a person last let the run continue: messages since then count for sendcampaign.failure_threshold';
COMMENT ON COLUMN sendcampaign.run_data.last_sent_at IS 'When the latest message that Twilio took was recorded; until the run has ended, this determines when receipts are asked for';
COMMENT ON COLUMN sendcampaign.run_data.sweep_at IS 'When Twilio''s list of messages is read next, to learn what became of its messages; null if it is not read any more';
COMMENT ON COLUMN sendcampaign.run_data.swept_at IS 'When it was read last';
COMMENT ON COLUMN sendcampaign.run_data.links_signed IS 'Whether all links that were sent are signed, so that others count nothing; null before the first ones are sent';
COMMENT ON COLUMN sendcampaign.run_data.recipients IS 'Query that selects the recipients when the run starts; null if all users of the list are';
COMMENT ON COLUMN sendcampaign.run_data.recipients_list IS 'List whose users the query selects, if that is not the campaign''s';
COMMENT ON COLUMN sendcampaign.run_data.recipients_error IS 'Why the query has failed, until the worker has learned of it';
CREATE TRIGGER keep_xid BEFORE INSERT OR UPDATE ON sendcampaign.run_data
    FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();

-- a campaign is sent by one job at a time
CREATE UNIQUE INDEX run_campaign_unfinished ON sendcampaign.run_data (campaign_id, schema)
    WHERE state IN ('queued', 'running', 'paused') AND test_phone IS NULL;
-- whose messages an account has: roles, and the latest runs of each
CREATE INDEX run_account ON sendcampaign.run_data (account, role_oid, id) WHERE account IS NOT NULL;
CREATE INDEX run_queue ON sendcampaign.run_data (role_oid, queued_at, id)
    WHERE finished_at IS NULL AND state <> 'paused';
CREATE INDEX run_campaign ON sendcampaign.run_data (campaign_id, schema, id);
CREATE INDEX run_cancelled ON sendcampaign.run_data (campaign_id, schema)
    WHERE finished_at IS NULL AND state = 'cancelled';
CREATE INDEX run_sweep ON sendcampaign.run_data (sweep_at) WHERE sweep_at IS NOT NULL;

CREATE TABLE sendcampaign.message_data (
    run_id bigint NOT NULL,
    list_user_id bigint NOT NULL,
    phone text,
    status text NOT NULL,
    sid text,
    error_code integer,
    error_message text,
    segments integer,
    attempts integer NOT NULL DEFAULT 0,
    counted boolean NOT NULL DEFAULT true,
    account text,
    written_in xid NOT NULL DEFAULT sendcampaign.current_xid(),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (run_id, list_user_id)
);
COMMENT ON TABLE sendcampaign.message_data IS 'Messages, as the extension stores them; to read them, use sendcampaign.message';
COMMENT ON COLUMN sendcampaign.message_data.counted IS 'False if the message was sent but sentCount could not be increased, because the application raised an error or suppressed the UPDATE; this is made up for when the run continues';
COMMENT ON COLUMN sendcampaign.message_data.account IS 'SID of the Twilio account to which the request of a message in doubt went, followed by @ and the region unless that is us1; null if that is of no interest';
COMMENT ON COLUMN sendcampaign.message_data.written_in IS 'As in sendcampaign.run_data; a loaded row proves neither that nothing was sent nor whose its SID is';
CREATE TRIGGER keep_xid BEFORE INSERT OR UPDATE ON sendcampaign.message_data
    FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();
CREATE INDEX message_sid ON sendcampaign.message_data USING hash (sid);
CREATE INDEX message_phone ON sendcampaign.message_data USING hash (phone);

-- Rows are inserted when the first report comes, and rarely updated: a table of
-- their own, so that sending costs no more, and messages are not rewritten.
CREATE TABLE sendcampaign.receipt_data (
    run_id bigint NOT NULL,
    list_user_id bigint NOT NULL,
    sid text,
    status text NOT NULL CHECK (status IN ('queued', 'sent', 'delivered', 'undelivered', 'failed',
                                           'read', 'canceled', 'unknown')),
    error_code integer,
    segments integer,
    price numeric,
    price_unit text,
    updated_at timestamptz NOT NULL,
    previous text,
    first_sid text,
    written_in xid NOT NULL DEFAULT sendcampaign.current_xid(),
    PRIMARY KEY (run_id, list_user_id)
) WITH (fillfactor = 70);    -- most are updated once, when the price is known
COMMENT ON TABLE sendcampaign.receipt_data IS 'What became of messages that Twilio took, as the extension stores it; to read it, use sendcampaign.message';
COMMENT ON COLUMN sendcampaign.receipt_data.sid IS 'Message that this is about, which is of no interest if the recipient''s message is another one by now; null if it has none, because a person has settled or forgotten it';
COMMENT ON COLUMN sendcampaign.receipt_data.previous IS 'Status before the last change, by which changes are counted; null if it was another message''s';
COMMENT ON COLUMN sendcampaign.receipt_data.first_sid IS 'Message that was not delivered, in place of which retry_failed() has sent another; null if there is none';
COMMENT ON COLUMN sendcampaign.receipt_data.written_in IS 'As in sendcampaign.run_data; a loaded row does not prove that a message was not delivered';
CREATE TRIGGER keep_xid BEFORE INSERT OR UPDATE ON sendcampaign.receipt_data
    FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();
CREATE INDEX receipt_first_sid ON sendcampaign.receipt_data USING hash (first_sid)
    WHERE first_sid IS NOT NULL;

CREATE TABLE sendcampaign.receipt_count (
    run_id bigint NOT NULL,
    delivered bigint NOT NULL,
    undelivered bigint NOT NULL,
    unconfirmed bigint NOT NULL
);
COMMENT ON TABLE sendcampaign.receipt_count IS
'What is still to be added to the counts of runs: those that are under way are left to their workers, and others may be locked';
CREATE INDEX receipt_count_run ON sendcampaign.receipt_count (run_id);

CREATE TABLE sendcampaign.early_receipt (
    role_oid oid NOT NULL,
    schema name NOT NULL,
    group_id bigint NOT NULL,
    sid text NOT NULL,
    account text NOT NULL,
    status text NOT NULL,
    error_code integer,
    segments integer,
    price text,
    price_unit text,
    updated_at timestamptz NOT NULL,
    whatsapp boolean NOT NULL DEFAULT false,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (role_oid, schema, group_id, sid)
);
COMMENT ON TABLE sendcampaign.early_receipt IS
'What Twilio has reported of messages before they were recorded';

CREATE TABLE sendcampaign.unreachable_data (
    phone text NOT NULL,
    error_code integer NOT NULL,
    role name NOT NULL,
    role_oid oid NOT NULL,
    system_identifier numeric NOT NULL
        DEFAULT (pg_catalog.pg_control_system()).system_identifier::numeric,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (phone, role_oid, system_identifier)
);
COMMENT ON TABLE sendcampaign.unreachable_data IS 'Phone numbers that cannot be reached by SMS, as the extension stores them; to read them, use sendcampaign.unreachable';
COMMENT ON COLUMN sendcampaign.unreachable_data.role_oid IS 'OID of the role, which identifies it even if it is renamed; in another cluster, its name does';
COMMENT ON COLUMN sendcampaign.unreachable_data.system_identifier IS 'Cluster in which the row was written';
CREATE INDEX unreachable_role ON sendcampaign.unreachable_data (role_oid);

-- What recipients have done with their links.  A row is inserted once, and never changed.
CREATE TABLE sendcampaign.event_data (
    run_id bigint NOT NULL,
    list_user_id bigint NOT NULL,
    event text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    written_in xid NOT NULL DEFAULT sendcampaign.current_xid(),
    PRIMARY KEY (run_id, list_user_id, event)
);
COMMENT ON TABLE sendcampaign.event_data IS 'What recipients have done with their links, as the extension stores it; to read it, use sendcampaign.event';
COMMENT ON COLUMN sendcampaign.event_data.written_in IS 'As in sendcampaign.run_data';
CREATE TRIGGER keep_xid BEFORE INSERT OR UPDATE ON sendcampaign.event_data
    FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();

-- It is in no dump: the owner of the database may not read it.
CREATE TABLE sendcampaign.link_secret (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    secret bytea NOT NULL CHECK (pg_catalog.octet_length(secret) OPERATOR(pg_catalog.=) 32)
);
COMMENT ON TABLE sendcampaign.link_secret IS 'The secret with which links are signed, in one row';
INSERT INTO sendcampaign.link_secret (secret)
SELECT pg_catalog.sha256(pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
                         OPERATOR(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
                         OPERATOR(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid()));

CREATE TABLE sendcampaign.error_code (
    code integer PRIMARY KEY,
    description text NOT NULL,
    what_to_do text NOT NULL
);
COMMENT ON TABLE sendcampaign.error_code IS 'What Twilio''s error codes mean, and what to do about them';
COMMENT ON COLUMN sendcampaign.error_code.code IS 'As in sendcampaign.message';
COMMENT ON COLUMN sendcampaign.error_code.description IS 'What it means';
COMMENT ON COLUMN sendcampaign.error_code.what_to_do IS 'What a person can do about it';

-- the library knows them
CREATE FUNCTION sendcampaign.error_codes(OUT code integer, OUT description text, OUT what_to_do text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sendcampaign_error_codes'
LANGUAGE C STRICT VOLATILE;
INSERT INTO sendcampaign.error_code SELECT c.code, c.description, c.what_to_do FROM sendcampaign.error_codes() c;
DROP FUNCTION sendcampaign.error_codes();

CREATE TABLE sendcampaign.batch (
    run_id bigint NOT NULL,
    number integer NOT NULL,
    list_user_ids bigint[] NOT NULL,
    duplicates bigint[],
    firsts bigint[],
    due timestamptz,
    written_in xid NOT NULL DEFAULT sendcampaign.current_xid(),
    PRIMARY KEY (run_id, number)
);
COMMENT ON TABLE sendcampaign.batch IS 'Recipients of a run that are still to be claimed, many per row';
COMMENT ON COLUMN sendcampaign.batch.duplicates IS 'The recipients among them who share a phone number with other list users';
COMMENT ON COLUMN sendcampaign.batch.firsts IS 'For each of the duplicates, the first list user with that phone number';
COMMENT ON COLUMN sendcampaign.batch.due IS 'When the recipients'' quiet hours end; null if they may be claimed at once';
COMMENT ON COLUMN sendcampaign.batch.written_in IS 'As in sendcampaign.run_data';
CREATE TRIGGER keep_xid BEFORE INSERT OR UPDATE ON sendcampaign.batch
    FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();

CREATE TABLE sendcampaign.chosen (
    run_id bigint NOT NULL,
    first_id bigint NOT NULL,
    list_user_id bigint NOT NULL,
    PRIMARY KEY (run_id, first_id)
);
COMMENT ON TABLE sendcampaign.chosen IS
'For list users who share a phone number, identified by the first of them: the one who gets the message';

CREATE TABLE sendcampaign.claim (
    run_id bigint NOT NULL,
    number integer NOT NULL,
    list_user_ids bigint[] NOT NULL,
    phones text[] NOT NULL,
    account text NOT NULL,
    senders text[] NOT NULL,
    claimed_at timestamptz NOT NULL,
    twilio_time bigint NOT NULL,
    texts text[],
    written_in xid NOT NULL DEFAULT sendcampaign.current_xid(),
    PRIMARY KEY (run_id, number)
);
-- claims exist for about a second, so compression would not pay off
ALTER TABLE sendcampaign.claim ALTER list_user_ids SET STORAGE EXTERNAL,
    ALTER phones SET STORAGE EXTERNAL, ALTER texts SET STORAGE EXTERNAL;
COMMENT ON TABLE sendcampaign.claim IS
'Recipients to whom a message may be on its way; those who have no outcome when the worker ends are in doubt';
COMMENT ON COLUMN sendcampaign.claim.account IS 'SID of the Twilio account, followed by @ and the region unless that is us1';
COMMENT ON COLUMN sendcampaign.claim.written_in IS 'As in sendcampaign.run_data';
CREATE TRIGGER keep_xid BEFORE INSERT OR UPDATE ON sendcampaign.claim
    FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();

CREATE TABLE sendcampaign.read_back_message (
    run_id bigint NOT NULL,
    sid text NOT NULL,
    phone text NOT NULL,
    list_user_id bigint NOT NULL,
    segments integer NOT NULL,
    text_hash bigint NOT NULL,
    certain boolean NOT NULL DEFAULT true,
    withheld boolean NOT NULL DEFAULT false,
    taken boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_id, sid, list_user_id)
);
CREATE INDEX read_back_message_list_user ON sendcampaign.read_back_message (run_id, list_user_id);
CREATE INDEX read_back_message_phone ON sendcampaign.read_back_message (run_id, phone);
CREATE INDEX read_back_message_sid ON sendcampaign.read_back_message (sid);
COMMENT ON TABLE sendcampaign.read_back_message IS
'Messages of a run that Twilio has, read back after commits may have been lost; list_user_id is 0 if the text does not identify the list user';
COMMENT ON COLUMN sendcampaign.read_back_message.certain IS 'False if the text has the links of several list users';
COMMENT ON COLUMN sendcampaign.read_back_message.taken IS 'True if it has been recorded as the message of that list user; it is then no other run''s';
COMMENT ON COLUMN sendcampaign.read_back_message.withheld IS 'True if another run had a message without an outcome to that phone number, which may be this one: the recipient is looked up';

CREATE TABLE sendcampaign.opt_out_data (
    phone text NOT NULL,
    schema name,
    group_id bigint,
    reason text,
    role name NOT NULL,
    role_oid oid NOT NULL,
    system_identifier numeric NOT NULL
        DEFAULT (pg_catalog.pg_control_system()).system_identifier::numeric,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    source text NOT NULL DEFAULT 'person' CHECK (source IN ('person', 'twilio', 'reply')),
    UNIQUE NULLS NOT DISTINCT (phone, schema, group_id, role_oid)
);
COMMENT ON TABLE sendcampaign.opt_out_data IS 'Opt-outs, as the extension stores them; to read them, use sendcampaign.opt_out. Each role has rows of its own, and a phone number is opted out as long as there is one';
COMMENT ON COLUMN sendcampaign.opt_out_data.role_oid IS 'OID of the role, which identifies it even if it is renamed; in another cluster, its name does';
COMMENT ON COLUMN sendcampaign.opt_out_data.system_identifier IS 'Cluster in which the row was written';
COMMENT ON COLUMN sendcampaign.opt_out_data.source IS 'Who says so: a person, who called opt_out(), Twilio, or the recipient in a reply; only what a person has entered stays when the recipient replies START';

-- An inbound message is for one group of a role, but a stop word concerns all of those that share
-- the sender.
CREATE TABLE sendcampaign.reply_data (
    sid_hash bytea NOT NULL,
    role_oid oid NOT NULL,
    schema name NOT NULL,
    group_id bigint NOT NULL,
    role name NOT NULL,
    system_identifier numeric NOT NULL
        DEFAULT (pg_catalog.pg_control_system()).system_identifier::numeric,
    sid text,
    phone text,
    sender text,
    body text,
    word text CHECK (word IN ('stop', 'start')),
    received_at timestamptz NOT NULL,
    run_id bigint,
    list_user_id bigint,
    written_in xid NOT NULL DEFAULT sendcampaign.current_xid(),
    PRIMARY KEY (sid_hash, role_oid, schema, group_id)
);
CREATE UNIQUE INDEX reply_of_role ON sendcampaign.reply_data (sid_hash, role_oid, system_identifier)
    WHERE sid IS NOT NULL;
COMMENT ON TABLE sendcampaign.reply_data IS 'Replies to messages, as the extension stores them; to read them, use sendcampaign.reply. A reply that has been erased keeps its row, without what it said and whose it was, so that it does not come back when Twilio reports it again; such a row also says that a stop or start word counts for another group that shares the sender';
COMMENT ON COLUMN sendcampaign.reply_data.sid_hash IS 'Identifies the reply without telling its SID, which is null once the reply has been erased';
COMMENT ON COLUMN sendcampaign.reply_data.role_oid IS 'OID of the role to whose runs it belongs; in another cluster, the name says who that is';
COMMENT ON COLUMN sendcampaign.reply_data.written_in IS 'As in sendcampaign.run_data; a loaded START does not keep a STOP from being recorded';
CREATE TRIGGER keep_xid BEFORE INSERT OR UPDATE ON sendcampaign.reply_data
    FOR EACH ROW EXECUTE FUNCTION sendcampaign.keep_xid();
CREATE INDEX reply_phone ON sendcampaign.reply_data (phone, received_at);

CREATE SEQUENCE sendcampaign.test_job_id AS bigint INCREMENT -1 MAXVALUE -1 START -1;
COMMENT ON SEQUENCE sendcampaign.test_job_id IS
'Generates the negative job numbers of test messages, which have no background job';

SELECT pg_catalog.pg_extension_config_dump('sendcampaign.run_data', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.message_data', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.receipt_data', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.receipt_count', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.early_receipt', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.unreachable_data', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.event_data', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.batch', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.chosen', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.claim', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.read_back_message', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.opt_out_data', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.reply_data', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.run_id', '');
SELECT pg_catalog.pg_extension_config_dump('sendcampaign.test_job_id', '');

GRANT USAGE ON SCHEMA sendcampaign TO pg_database_owner;
GRANT SELECT, INSERT ON sendcampaign.run_data, sendcampaign.message_data,
    sendcampaign.receipt_data, sendcampaign.receipt_count, sendcampaign.early_receipt,
    sendcampaign.unreachable_data, sendcampaign.event_data, sendcampaign.batch,
    sendcampaign.chosen, sendcampaign.claim, sendcampaign.read_back_message, sendcampaign.opt_out_data, sendcampaign.reply_data
    TO pg_database_owner;
GRANT SELECT, UPDATE ON SEQUENCE sendcampaign.run_id, sendcampaign.test_job_id TO pg_database_owner;

/*
 * Views for people to read.  A role sees what it, and the roles that it is a
 * member of, have sent; a role with BYPASSRLS sees everything, as it would
 * under policies.  In a cluster other than the one where a run was queued, the
 * OID of its role means nothing.
 */

CREATE VIEW sendcampaign.run WITH (security_barrier = true) AS
SELECT r.id, r.schema, r.job_id, r.campaign_id, r.role, r.state, r.total, r.sent, r.failed,
       r.skipped, r.in_doubt, r.queued_at, r.started_at, r.finished_at, r.error, r.list_id,
       r.message, r.base_url, r.system_identifier, r.database, r.timeline, r.read_back, r.next_at,
       r.test_phone, r.paused_from, r.role_oid, r.media_urls, r.content_sid,
       r.delivered OPERATOR(pg_catalog.+) coalesce(
           (SELECT pg_catalog.sum(c.delivered)::bigint FROM sendcampaign.receipt_count c
            WHERE c.run_id OPERATOR(pg_catalog.=) r.id), 0) AS delivered,
       r.undelivered OPERATOR(pg_catalog.+) coalesce(
           (SELECT pg_catalog.sum(c.undelivered)::bigint FROM sendcampaign.receipt_count c
            WHERE c.run_id OPERATOR(pg_catalog.=) r.id), 0) AS undelivered,
       r.unconfirmed OPERATOR(pg_catalog.+) coalesce(
           (SELECT pg_catalog.sum(c.unconfirmed)::bigint FROM sendcampaign.receipt_count c
            WHERE c.run_id OPERATOR(pg_catalog.=) r.id), 0) AS unconfirmed,
       r.account, r.group_id, r.sweep_at, r.recipients
FROM sendcampaign.run_data r
WHERE (SELECT u.rolbypassrls FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) current_user)
   OR CASE WHEN r.system_identifier OPERATOR(pg_catalog.=)
               (SELECT c.system_identifier::numeric FROM pg_catalog.pg_control_system() c)
           THEN pg_catalog.pg_has_role(r.role_oid, 'MEMBER')
           ELSE EXISTS (SELECT FROM pg_catalog.pg_roles p
                        WHERE p.rolname OPERATOR(pg_catalog.=) r.role
                          AND pg_catalog.pg_has_role(p.oid, 'MEMBER')) END;
COMMENT ON VIEW sendcampaign.run IS 'One row per run: a background job that sends a campaign, or a test message';
COMMENT ON COLUMN sendcampaign.run.id IS 'The run''s own id';
COMMENT ON COLUMN sendcampaign.run.schema IS 'Schema of the application''s tables, as set when the run was queued';
COMMENT ON COLUMN sendcampaign.run.job_id IS 'Background job, in the application''s table ac_background_jobs; negative for a test message';
COMMENT ON COLUMN sendcampaign.run.campaign_id IS 'Campaign, in the application''s table ac_campaigns';
COMMENT ON COLUMN sendcampaign.run.role IS 'Role with whose rights the application''s tables are used';
COMMENT ON COLUMN sendcampaign.run.state IS 'queued, running, paused, completed, failed or cancelled';
COMMENT ON COLUMN sendcampaign.run.total IS 'Number of recipients, fixed when the run starts; null before';
COMMENT ON COLUMN sendcampaign.run.sent IS 'Messages that Twilio accepted';
COMMENT ON COLUMN sendcampaign.run.failed IS 'Messages that Twilio did not accept';
COMMENT ON COLUMN sendcampaign.run.skipped IS 'Recipients to whom nothing was sent; sendcampaign.message gives the reason for each';
COMMENT ON COLUMN sendcampaign.run.in_doubt IS 'Messages for which it cannot be determined whether Twilio accepted them';
COMMENT ON COLUMN sendcampaign.run.queued_at IS 'When send_campaign() was called';
COMMENT ON COLUMN sendcampaign.run.started_at IS 'When a worker first started on it';
COMMENT ON COLUMN sendcampaign.run.finished_at IS 'When it ended, whether completed, failed or cancelled';
COMMENT ON COLUMN sendcampaign.run.error IS 'Why it failed, is paused or cannot continue, or a summary of the messages that failed';
COMMENT ON COLUMN sendcampaign.run.list_id IS 'List, in the application''s table ac_lists, when the run started';
COMMENT ON COLUMN sendcampaign.run.message IS 'Text when the run started; of a content template, its variables';
COMMENT ON COLUMN sendcampaign.run.base_url IS 'URL from which the tracking link is made, when the run started';
COMMENT ON COLUMN sendcampaign.run.system_identifier IS 'Cluster in which it was queued';
COMMENT ON COLUMN sendcampaign.run.database IS 'Database in which it was queued';
COMMENT ON COLUMN sendcampaign.run.timeline IS 'Timeline, and restored backup if any, under which it was queued or last read back';
COMMENT ON COLUMN sendcampaign.run.read_back IS 'Whether what was sent has been read back from Twilio after commits may have been lost';
COMMENT ON COLUMN sendcampaign.run.next_at IS 'If all remaining recipients are in their quiet hours: when the first of these end';
COMMENT ON COLUMN sendcampaign.run.test_phone IS 'For a run of send_test(): the phone number that its one message goes to; it is not counted anywhere else';
COMMENT ON COLUMN sendcampaign.run.paused_from IS 'State to which resume() returns it if it was paused; null if resume() would override a doubt about what was sent';
COMMENT ON COLUMN sendcampaign.run.role_oid IS 'OID of that role';
COMMENT ON COLUMN sendcampaign.run.media_urls IS 'URLs of the media when the run started; null if there were none';
COMMENT ON COLUMN sendcampaign.run.content_sid IS 'SID of the content template when the run started; null if there was none';
COMMENT ON COLUMN sendcampaign.run.delivered IS 'Messages among those sent that were delivered, as Twilio reports';
COMMENT ON COLUMN sendcampaign.run.undelivered IS 'Messages among those sent that were not delivered: undelivered, failed or canceled';
COMMENT ON COLUMN sendcampaign.run.unconfirmed IS 'Messages among those sent of which it stayed unknown whether they were delivered';
COMMENT ON COLUMN sendcampaign.run.account IS 'SID of the Twilio account to which its latest messages were sent';
COMMENT ON COLUMN sendcampaign.run.group_id IS 'Group of its list then, in the application''s table groups';
COMMENT ON COLUMN sendcampaign.run.sweep_at IS 'When Twilio is asked next what became of its messages; null if that is known of all, or nobody asks';
COMMENT ON COLUMN sendcampaign.run.recipients IS 'Query that selects the recipients when the run starts; null if all users of the list are';

CREATE VIEW sendcampaign.message WITH (security_barrier = true) AS
SELECT r.schema, r.job_id, m.list_user_id, m.phone, m.status, m.sid, m.error_code,
       m.error_message, coalesce(d.segments, m.segments) AS segments, m.attempts, m.counted,
       m.created_at, m.updated_at, m.run_id, d.status AS delivery, d.error_code AS delivery_code,
       e.description AS delivery_error, d.updated_at AS delivery_at, d.price, d.price_unit
FROM sendcampaign.run r
JOIN sendcampaign.message_data m ON m.run_id OPERATOR(pg_catalog.=) r.id
LEFT JOIN sendcampaign.receipt_data d ON d.run_id OPERATOR(pg_catalog.=) m.run_id
    AND d.list_user_id OPERATOR(pg_catalog.=) m.list_user_id
    AND m.status OPERATOR(pg_catalog.=) 'sent' AND d.sid IS NOT DISTINCT FROM m.sid
LEFT JOIN sendcampaign.error_code e ON e.code OPERATOR(pg_catalog.=) d.error_code;
COMMENT ON VIEW sendcampaign.message IS 'One row per recipient of a run who has an outcome';
COMMENT ON COLUMN sendcampaign.message.schema IS 'Schema of the application''s tables';
COMMENT ON COLUMN sendcampaign.message.job_id IS 'Background job of the run';
COMMENT ON COLUMN sendcampaign.message.list_user_id IS 'Recipient, in the application''s table ac_list_users';
COMMENT ON COLUMN sendcampaign.message.phone IS 'Phone number in E.164 form, or as it was in the list if the recipient was skipped before it was converted';
COMMENT ON COLUMN sendcampaign.message.status IS 'sent, failed, skipped or in_doubt';
COMMENT ON COLUMN sendcampaign.message.sid IS 'Twilio''s identifier of the message';
COMMENT ON COLUMN sendcampaign.message.error_code IS 'Twilio''s error code, or the HTTP status if there was none';
COMMENT ON COLUMN sendcampaign.message.error_message IS 'Why it failed, was skipped or is in doubt';
COMMENT ON COLUMN sendcampaign.message.segments IS 'Number of segments that Twilio counted, as billed once that is known; null as long as Twilio does not know it';
COMMENT ON COLUMN sendcampaign.message.attempts IS 'Number of requests made';
COMMENT ON COLUMN sendcampaign.message.counted IS 'False if it was sent but sentCount could not be increased, because the application raised an error or suppressed the UPDATE';
COMMENT ON COLUMN sendcampaign.message.created_at IS 'When the outcome was first recorded';
COMMENT ON COLUMN sendcampaign.message.updated_at IS 'When it was last recorded';
COMMENT ON COLUMN sendcampaign.message.run_id IS 'Run, in sendcampaign.run';
COMMENT ON COLUMN sendcampaign.message.delivery IS 'What became of a message that was sent: queued, sent, delivered, read, undelivered, failed, canceled or unknown; null as long as nothing has been reported';
COMMENT ON COLUMN sendcampaign.message.delivery_code IS 'Twilio''s error code, if it was not delivered';
COMMENT ON COLUMN sendcampaign.message.delivery_error IS 'What that code means';
COMMENT ON COLUMN sendcampaign.message.delivery_at IS 'When that happened, by Twilio''s clock if it was reported';
COMMENT ON COLUMN sendcampaign.message.price IS 'What Twilio charges for it; null as long as that is not known';
COMMENT ON COLUMN sendcampaign.message.price_unit IS 'Currency of the price';

-- An opt-out is visible to those whose messages it stops, and to those who
-- entered it.  No code of the application runs for this: a table of groups
-- counts if the role may read all of its rows.  The right to INSERT means that
-- a role may opt phone numbers out of all groups; nobody can actually insert
-- through the view, because it lacks role_oid.
CREATE VIEW sendcampaign.opt_out WITH (security_barrier = true) AS
SELECT o.phone, o.schema, o.group_id, o.reason, o.role, o.created_at
FROM sendcampaign.opt_out_data o
WHERE (SELECT u.rolbypassrls FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) current_user)
   OR CASE WHEN o.group_id IS NULL
           THEN (SELECT pg_catalog.has_function_privilege(
                     '@extschema@.send_campaign(bigint, bigint, text)', 'EXECUTE'))
           ELSE o.schema OPERATOR(pg_catalog.=) ANY (
               SELECT n.nspname
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
               WHERE c.relname OPERATOR(pg_catalog.=) 'groups'
                 AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'f']::"char"[])
                 AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                 AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
                 AND NOT pg_catalog.row_security_active(c.oid)) END
   OR CASE WHEN o.system_identifier OPERATOR(pg_catalog.=)
                (SELECT c.system_identifier::numeric FROM pg_catalog.pg_control_system() c)
           THEN pg_catalog.pg_has_role(o.role_oid, 'MEMBER')
           ELSE EXISTS (SELECT FROM pg_catalog.pg_roles p
                        WHERE p.rolname OPERATOR(pg_catalog.=) o.role
                          AND pg_catalog.pg_has_role(p.oid, 'MEMBER')) END;
COMMENT ON VIEW sendcampaign.opt_out IS 'Phone numbers that get no more messages, from one group or from any';
COMMENT ON COLUMN sendcampaign.opt_out.phone IS 'Phone number in E.164 form';
COMMENT ON COLUMN sendcampaign.opt_out.schema IS 'Schema of the group''s table; null if it applies to all groups';
COMMENT ON COLUMN sendcampaign.opt_out.group_id IS 'Group whose messages are not wanted; null for all groups';
COMMENT ON COLUMN sendcampaign.opt_out.reason IS 'Reason given to opt_out(), Twilio''s error, or the word that the recipient replied';
COMMENT ON COLUMN sendcampaign.opt_out.role IS 'Role that entered it';
COMMENT ON COLUMN sendcampaign.opt_out.created_at IS 'When it was entered, or the recipient replied';

CREATE VIEW sendcampaign.reply WITH (security_barrier = true) AS
SELECT r.schema, r.group_id, r.phone, r.sender, r.body, r.word, r.received_at, r.sid, n.job_id,
       n.campaign_id, r.list_user_id, r.run_id, r.role
FROM sendcampaign.reply_data r
LEFT JOIN sendcampaign.run n ON n.id OPERATOR(pg_catalog.=) r.run_id
WHERE r.sid IS NOT NULL
  AND ((SELECT u.rolbypassrls FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) current_user)
   OR CASE WHEN r.system_identifier OPERATOR(pg_catalog.=)
               (SELECT c.system_identifier::numeric FROM pg_catalog.pg_control_system() c)
           THEN pg_catalog.pg_has_role(r.role_oid, 'MEMBER')
           ELSE EXISTS (SELECT FROM pg_catalog.pg_roles p
                        WHERE p.rolname OPERATOR(pg_catalog.=) r.role
                          AND pg_catalog.pg_has_role(p.oid, 'MEMBER')) END);
COMMENT ON VIEW sendcampaign.reply IS 'One row per inbound message to a group';
COMMENT ON COLUMN sendcampaign.reply.schema IS 'Schema of the group''s table';
COMMENT ON COLUMN sendcampaign.reply.group_id IS 'Group to whose sender it came, in the application''s table groups';
COMMENT ON COLUMN sendcampaign.reply.phone IS 'Phone number that it came from, in E.164 form';
COMMENT ON COLUMN sendcampaign.reply.sender IS 'Number that it came to';
COMMENT ON COLUMN sendcampaign.reply.body IS 'Text as it was received; somebody else has written it';
COMMENT ON COLUMN sendcampaign.reply.word IS 'stop if the text is a stop word, which opted the phone number out, start if it is a start word; else null';
COMMENT ON COLUMN sendcampaign.reply.received_at IS 'When Twilio received it';
COMMENT ON COLUMN sendcampaign.reply.sid IS 'Twilio''s identifier of the message';
COMMENT ON COLUMN sendcampaign.reply.job_id IS 'Background job of the run that it answers';
COMMENT ON COLUMN sendcampaign.reply.campaign_id IS 'Campaign of the run that it answers';
COMMENT ON COLUMN sendcampaign.reply.list_user_id IS 'List user who answers, in the application''s table ac_list_users; null if the group has sent nothing to the phone number before';
COMMENT ON COLUMN sendcampaign.reply.run_id IS 'Run that it answers, in sendcampaign.run: the group''s latest one that sent something to the phone number before';
COMMENT ON COLUMN sendcampaign.reply.role IS 'Role to whose runs it belongs';

CREATE VIEW sendcampaign.conversation WITH (security_barrier = true) AS
SELECT t.phone, t.at, t.direction, t.body, t.status, t.delivery, t.schema, t.group_id, t.job_id,
       t.campaign_id, t.list_user_id, t.sid
FROM (SELECT m.phone, m.created_at AS at, 'out' AS direction, NULL::text AS body, m.status,
             c.status AS delivery, r.schema, d.group_id, r.job_id, r.campaign_id, m.list_user_id, m.sid
      FROM sendcampaign.run r
      JOIN sendcampaign.run_data d ON d.id OPERATOR(pg_catalog.=) r.id
      JOIN sendcampaign.message_data m ON m.run_id OPERATOR(pg_catalog.=) r.id
      LEFT JOIN sendcampaign.receipt_data c ON c.run_id OPERATOR(pg_catalog.=) m.run_id
          AND c.list_user_id OPERATOR(pg_catalog.=) m.list_user_id
          AND c.sid OPERATOR(pg_catalog.=) m.sid
      WHERE m.status OPERATOR(pg_catalog.<>) 'skipped'
      UNION ALL
      SELECT a.phone, a.received_at, 'in', a.body, 'received', NULL, a.schema, a.group_id, a.job_id,
             a.campaign_id, a.list_user_id, a.sid
      FROM sendcampaign.reply a) t
ORDER BY t.at;
COMMENT ON VIEW sendcampaign.conversation IS 'Messages to and from phone numbers, in order of time; made to be asked for one phone number';
COMMENT ON COLUMN sendcampaign.conversation.phone IS 'The recipient''s phone number in E.164 form';
COMMENT ON COLUMN sendcampaign.conversation.at IS 'When its outcome was recorded, or when Twilio received the reply';
COMMENT ON COLUMN sendcampaign.conversation.direction IS 'out: to the phone number; in: from it';
COMMENT ON COLUMN sendcampaign.conversation.body IS 'Text of a reply; the texts that were sent are not stored';
COMMENT ON COLUMN sendcampaign.conversation.status IS 'sent, failed or in_doubt; received for a reply';
COMMENT ON COLUMN sendcampaign.conversation.delivery IS 'What became of a message that was sent, as far as Twilio has told';
COMMENT ON COLUMN sendcampaign.conversation.schema IS 'Schema of the application''s tables';
COMMENT ON COLUMN sendcampaign.conversation.group_id IS 'Group, in the application''s table groups';
COMMENT ON COLUMN sendcampaign.conversation.job_id IS 'Background job of the run';
COMMENT ON COLUMN sendcampaign.conversation.campaign_id IS 'Campaign of the run';
COMMENT ON COLUMN sendcampaign.conversation.list_user_id IS 'List user';
COMMENT ON COLUMN sendcampaign.conversation.sid IS 'Twilio''s identifier of the message';

CREATE VIEW sendcampaign.unreachable WITH (security_barrier = true) AS
SELECT p.phone, p.error_code, e.description AS error, p.role, p.updated_at
FROM sendcampaign.unreachable_data p
LEFT JOIN sendcampaign.error_code e ON e.code OPERATOR(pg_catalog.=) p.error_code
WHERE (SELECT u.rolbypassrls FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) current_user)
   OR CASE WHEN p.system_identifier OPERATOR(pg_catalog.=)
               (SELECT c.system_identifier::numeric FROM pg_catalog.pg_control_system() c)
           THEN pg_catalog.pg_has_role(p.role_oid, 'MEMBER')
           ELSE EXISTS (SELECT FROM pg_catalog.pg_roles o
                        WHERE o.rolname OPERATOR(pg_catalog.=) p.role
                          AND pg_catalog.pg_has_role(o.oid, 'MEMBER')) END;
COMMENT ON VIEW sendcampaign.unreachable IS 'Phone numbers that cannot be reached by SMS, as their last messages have shown';
COMMENT ON COLUMN sendcampaign.unreachable.phone IS 'Phone number in E.164 form';
COMMENT ON COLUMN sendcampaign.unreachable.error_code IS 'Twilio''s error code: 30005 or 30006';
COMMENT ON COLUMN sendcampaign.unreachable.error IS 'What that code means';
COMMENT ON COLUMN sendcampaign.unreachable.role IS 'Role that has sent the message';
COMMENT ON COLUMN sendcampaign.unreachable.updated_at IS 'When Twilio reported it';

CREATE VIEW sendcampaign.event WITH (security_barrier = true) AS
SELECT r.schema, r.job_id, e.list_user_id, e.event, e.created_at, e.run_id
FROM sendcampaign.run r
JOIN sendcampaign.event_data e ON e.run_id OPERATOR(pg_catalog.=) r.id;
COMMENT ON VIEW sendcampaign.event IS 'What recipients have done with their links, one row per recipient of a run and event';
COMMENT ON COLUMN sendcampaign.event.schema IS 'Schema of the application''s tables';
COMMENT ON COLUMN sendcampaign.event.job_id IS 'Background job of the run';
COMMENT ON COLUMN sendcampaign.event.list_user_id IS 'Recipient, in the application''s table ac_list_users';
COMMENT ON COLUMN sendcampaign.event.event IS 'open, complete, or another name that the application has given to track()';
COMMENT ON COLUMN sendcampaign.event.created_at IS 'When it happened first';
COMMENT ON COLUMN sendcampaign.event.run_id IS 'Run, in sendcampaign.run';

-- No part of it is looked up row by row: what belongs to recipients is joined.
CREATE VIEW sendcampaign.result WITH (security_barrier = true) AS
SELECT r.schema, r.job_id, r.campaign_id, m.list_user_id, m.phone, m.status,
       CASE WHEN m.status OPERATOR(pg_catalog.=) 'sent' THEN m.created_at END AS sent_at,
       m.sid, d.status AS delivery, d.updated_at AS delivery_at,
       coalesce(d.error_code, m.error_code) AS error_code,
       coalesce(e.description, m.error_message) AS error, e.what_to_do,
       o.created_at AS opened_at, c.created_at AS completed_at,
       coalesce(a.count, 0) AS replies, a.last_at AS replied_at,
       s.phone IS NOT NULL OR t.phone IS NOT NULL AS opted_out,
       coalesce(d.segments, m.segments) AS segments, d.price, d.price_unit, m.run_id
FROM sendcampaign.run r
JOIN sendcampaign.message_data m ON m.run_id OPERATOR(pg_catalog.=) r.id
LEFT JOIN sendcampaign.receipt_data d ON d.run_id OPERATOR(pg_catalog.=) m.run_id
    AND d.list_user_id OPERATOR(pg_catalog.=) m.list_user_id
    AND m.status OPERATOR(pg_catalog.=) 'sent' AND d.sid IS NOT DISTINCT FROM m.sid
LEFT JOIN sendcampaign.error_code e
    ON e.code OPERATOR(pg_catalog.=) coalesce(d.error_code, m.error_code)
LEFT JOIN sendcampaign.event_data o ON o.run_id OPERATOR(pg_catalog.=) m.run_id
    AND o.list_user_id OPERATOR(pg_catalog.=) m.list_user_id
    AND o.event OPERATOR(pg_catalog.=) 'open'
LEFT JOIN sendcampaign.event_data c ON c.run_id OPERATOR(pg_catalog.=) m.run_id
    AND c.list_user_id OPERATOR(pg_catalog.=) m.list_user_id
    AND c.event OPERATOR(pg_catalog.=) 'complete'
LEFT JOIN (SELECT y.run_id, y.list_user_id, pg_catalog.count(*) AS count,
                  pg_catalog.max(y.received_at) AS last_at
           FROM sendcampaign.reply_data y
           WHERE y.sid IS NOT NULL AND y.run_id IS NOT NULL
           GROUP BY y.run_id, y.list_user_id) a
    ON a.run_id OPERATOR(pg_catalog.=) m.run_id
    AND a.list_user_id OPERATOR(pg_catalog.=) m.list_user_id
LEFT JOIN (SELECT DISTINCT p.phone FROM sendcampaign.opt_out_data p WHERE p.group_id IS NULL) s
    ON s.phone OPERATOR(pg_catalog.=) m.phone
LEFT JOIN (SELECT DISTINCT p.phone, p.schema, p.group_id FROM sendcampaign.opt_out_data p
           WHERE p.group_id IS NOT NULL) t
    ON t.phone OPERATOR(pg_catalog.=) m.phone AND t.schema OPERATOR(pg_catalog.=) r.schema
    AND t.group_id OPERATOR(pg_catalog.=) r.group_id;
COMMENT ON VIEW sendcampaign.result IS 'One row per recipient of a run who has an outcome, with all that is known of it';
COMMENT ON COLUMN sendcampaign.result.schema IS 'Schema of the application''s tables';
COMMENT ON COLUMN sendcampaign.result.job_id IS 'Background job of the run; negative for a test message';
COMMENT ON COLUMN sendcampaign.result.campaign_id IS 'Campaign';
COMMENT ON COLUMN sendcampaign.result.list_user_id IS 'Recipient, in the application''s table ac_list_users';
COMMENT ON COLUMN sendcampaign.result.phone IS 'As in sendcampaign.message';
COMMENT ON COLUMN sendcampaign.result.status IS 'sent, failed, skipped or in_doubt';
COMMENT ON COLUMN sendcampaign.result.sent_at IS 'When it was recorded that Twilio took the message; null unless it did';
COMMENT ON COLUMN sendcampaign.result.sid IS 'Twilio''s identifier of the message';
COMMENT ON COLUMN sendcampaign.result.delivery IS 'What became of a message that was sent, as in sendcampaign.message';
COMMENT ON COLUMN sendcampaign.result.delivery_at IS 'When that happened';
COMMENT ON COLUMN sendcampaign.result.error_code IS 'Twilio''s error code, or the HTTP status, if it failed or was not delivered';
COMMENT ON COLUMN sendcampaign.result.error IS 'What that code means, or why the recipient was skipped';
COMMENT ON COLUMN sendcampaign.result.what_to_do IS 'What a person can do about it; null if the code is not in sendcampaign.error_code';
COMMENT ON COLUMN sendcampaign.result.opened_at IS 'When the link was first opened';
COMMENT ON COLUMN sendcampaign.result.completed_at IS 'When what is behind the link was first completed';
COMMENT ON COLUMN sendcampaign.result.replies IS 'Number of replies to this message';
COMMENT ON COLUMN sendcampaign.result.replied_at IS 'When Twilio received the last of them';
COMMENT ON COLUMN sendcampaign.result.opted_out IS 'Whether the phone number is opted out now, of the run''s group or of all groups';
COMMENT ON COLUMN sendcampaign.result.segments IS 'Number of segments, as billed once that is known';
COMMENT ON COLUMN sendcampaign.result.price IS 'What Twilio charges for it';
COMMENT ON COLUMN sendcampaign.result.price_unit IS 'Currency of the price';
COMMENT ON COLUMN sendcampaign.result.run_id IS 'Run, in sendcampaign.run';

-- The bar is made of block characters if the encoding has them; "+ 0 * p.filled"
-- keeps chr() from being evaluated if it does not.
CREATE VIEW sendcampaign.progress WITH (security_barrier = true) AS
SELECT p.job_id,
       p.campaign_id,
       p.state,
       CASE pg_catalog.getdatabaseencoding() WHEN 'UTF8'
            THEN pg_catalog.repeat(pg_catalog.chr(9608 + 0 * p.filled), p.filled)
              || pg_catalog.repeat(pg_catalog.chr(9617 + 0 * p.filled), 20 - p.filled)
            ELSE pg_catalog.repeat('#', p.filled) || pg_catalog.repeat('.', 20 - p.filled) END
           || pg_catalog.lpad(pg_catalog.floor(p.share * 100)::text || '%', 5) AS progress,
       p.total,
       p.sent,
       p.delivered,
       p.failed,
       p.skipped,
       p.in_doubt,
       CASE WHEN p.seconds > 0 THEN (p.done / p.seconds)::numeric(12, 1) END AS per_second,
       CASE WHEN p.state = 'running' AND p.done > 0 AND p.next_at IS NULL
            THEN pg_catalog.date_trunc('second', pg_catalog.make_interval(
                     secs => p.seconds * (p.total - p.done) / p.done)) END AS time_left,
       p.next_at,
       p.error,
       p.schema
FROM (SELECT s.*, pg_catalog.floor(greatest(0, least(1, s.share)) * 20)::integer AS filled
      FROM (SELECT r.job_id, r.campaign_id, r.state, r.total, r.sent, r.delivered, r.failed,
                   r.skipped, r.in_doubt, r.error, r.schema,
                   CASE WHEN r.state = 'running' AND r.next_at > pg_catalog.now()
                        THEN r.next_at END AS next_at,
                   r.sent + r.failed + r.skipped + r.in_doubt AS done,
                   CASE WHEN r.total > 0
                        THEN (r.sent + r.failed + r.skipped + r.in_doubt)::double precision / r.total
                        WHEN r.state = 'completed' THEN 1 ELSE 0 END AS share,
                   extract(epoch FROM coalesce(r.finished_at, pg_catalog.clock_timestamp())
                                      - r.started_at)::double precision AS seconds
            FROM sendcampaign.run r) s) p
ORDER BY p.job_id DESC;
COMMENT ON VIEW sendcampaign.progress IS
'Progress of runs for people to read, newest first; made for \watch';

GRANT SELECT ON sendcampaign.run, sendcampaign.message, sendcampaign.opt_out,
    sendcampaign.unreachable, sendcampaign.event, sendcampaign.result, sendcampaign.reply, sendcampaign.conversation,
    sendcampaign.progress, sendcampaign.error_code TO PUBLIC;

/*
 * Functions for people to call.
 */

CREATE FUNCTION @extschema@.send_campaign(campaign_id bigint, job_id bigint DEFAULT NULL,
    recipients text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'send_campaign'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.send_campaign(bigint, bigint, text) IS
'Queues a campaign, which is sent once the transaction commits, to the users of its list or to those that a query selects. Returns the id of the background job, which is created if none is given';

/*
 * PostgreSQL prefers a function that matches the arguments of a call exactly:
 * send_campaign(1) would call somebody else's send_campaign(integer) rather
 * than ours.  So the name is reserved in this schema.
 */
CREATE FUNCTION sendcampaign.keep_name()
RETURNS event_trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    schema name;
BEGIN
    -- a call with one argument may be taken for a cast to a type of that name
    SELECT s.nspname INTO schema
    FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    JOIN pg_proc o ON o.oid = d.objid AND o.proname = 'send_campaign'
    JOIN pg_namespace s ON s.oid = o.pronamespace
    JOIN (SELECT f.oid, f.proname, f.pronamespace, f.proowner FROM pg_proc f
          UNION ALL SELECT 0, t.typname, t.typnamespace, t.typowner FROM pg_type t) p
        ON p.proname = o.proname AND p.pronamespace = o.pronamespace AND p.oid <> o.oid
    JOIN pg_roles r ON r.oid = p.proowner AND NOT r.rolsuper
    WHERE e.extname = 'sendcampaign'
      AND NOT (SELECT u.rolsuper FROM pg_roles u WHERE u.rolname = current_user);
    IF FOUND THEN
        RAISE EXCEPTION 'the name "send_campaign" is reserved in schema "%"', schema
            USING ERRCODE = 'reserved_name',
                  DETAIL = 'The extension sendcampaign has a function of that name there, and yours could be called in its place.',
                  HINT = 'Give it another name, or create it in another schema.';
    END IF;
END
$$;
COMMENT ON FUNCTION sendcampaign.keep_name() IS
'Ensures that only a superuser can create another send_campaign() in the schema of the extension''s own';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_proc p JOIN pg_namespace s ON s.oid = p.pronamespace
               WHERE p.proname = 'send_campaign' AND s.nspname = '@extschema@' AND NOT EXISTS
                   (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                      AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'sendcampaign'))
    THEN
        RAISE EXCEPTION 'schema "%" has another function send_campaign()', '@extschema@'
            USING ERRCODE = 'duplicate_function',
                  DETAIL = 'It could be called in place of the extension''s own.',
                  HINT = 'Drop or rename it, or create the extension in another schema.';
    END IF;
END
$$;

CREATE EVENT TRIGGER sendcampaign_keep_name ON ddl_command_end
    WHEN TAG IN ('CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'ALTER FUNCTION',
                 'ALTER PROCEDURE', 'ALTER ROUTINE', 'ALTER AGGREGATE', 'CREATE DOMAIN',
                 'CREATE TYPE', 'ALTER DOMAIN', 'ALTER TYPE')
    EXECUTE FUNCTION sendcampaign.keep_name();
COMMENT ON EVENT TRIGGER sendcampaign_keep_name IS
'Ensures that only a superuser can create another send_campaign() in the schema of the extension''s own';

CREATE FUNCTION sendcampaign.wake()
RETURNS integer
AS 'MODULE_PATHNAME', 'sendcampaign_wake'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.wake() IS
'Makes unfinished runs continue; returns the number of workers that were started or woken';

CREATE FUNCTION sendcampaign.settle(job_id bigint, list_user_id bigint, sent boolean)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_settle'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.settle(bigint, bigint, boolean) IS
'Settles by hand whether a message in doubt was sent';

CREATE FUNCTION sendcampaign.pause(job_id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_pause'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.pause(bigint) IS
'Pauses a run: once this is committed, nothing more is sent until it is resumed';

CREATE FUNCTION sendcampaign.cancel(job_id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_cancel'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.cancel(bigint) IS
'Cancels a run: once this is committed, nothing more is sent, and the recipients to whom nothing was sent are skipped';

CREATE FUNCTION sendcampaign.resume(job_id bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_resume'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.resume(bigint) IS
'Resumes a paused run where it stopped';

CREATE FUNCTION sendcampaign.opt_out(phone text, group_id bigint DEFAULT NULL, reason text DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sendcampaign_opt_out'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.opt_out(text, bigint, text) IS
'Opts a phone number out of the messages of one group that the role may see, or of all groups, which requires the right to INSERT on sendcampaign.opt_out; returns false if the role has entered this already';

CREATE FUNCTION sendcampaign.opt_in(phone text, group_id bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sendcampaign_opt_in'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.opt_in(text, bigint) IS
'Removes the opt-outs that the role, or a role that it is a member of, has entered for a phone number: those for one group or, without a group, all of them; returns false if there were none';

CREATE FUNCTION sendcampaign.opt_outs(group_id bigint)
RETURNS TABLE (phone text, "all" boolean, reason text, role name, created_at timestamptz)
AS 'MODULE_PATHNAME', 'sendcampaign_opt_outs'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.opt_outs(bigint) IS
'Phone numbers that get no messages from a group that the role may see, whoever entered them; "all" is true if they get none from any group';

CREATE FUNCTION sendcampaign.preview(campaign_id bigint, "limit" bigint DEFAULT 10,
    recipients text DEFAULT NULL)
RETURNS TABLE (list_user_id bigint, phone text, sender text, text text, encoding text,
    units integer, segments integer, skipped text, deferred_until timestamptz, unreachable text)
AS 'MODULE_PATHNAME', 'sendcampaign_preview'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.preview(bigint, bigint, text) IS
'Shows what the first recipients of a campaign would get now, and why some would get nothing; sends nothing';

-- a type, because an argument and a column have the same name
CREATE TYPE sendcampaign.estimate_row AS (
    recipients bigint, messages bigint, deferred bigint, duplicates bigint, opted_out bigint,
    without_phone bigint, invalid_phone bigint, without_value bigint, expired bigint,
    unreachable bigint, over_limit bigint, segments bigint, segments_gsm7 bigint, segments_ucs2 bigint,
    messages_ucs2 bigint, ucs2_characters text, cost numeric, duration interval
);
COMMENT ON TYPE sendcampaign.estimate_row IS 'What sendcampaign.estimate() returns';

CREATE FUNCTION sendcampaign.estimate(campaign_id bigint, price_per_segment numeric DEFAULT NULL,
    recipients text DEFAULT NULL)
RETURNS sendcampaign.estimate_row
AS 'MODULE_PATHNAME', 'sendcampaign_estimate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.estimate(bigint, numeric, text) IS
'Shows what a campaign would amount to if it were sent now: messages, segments, cost, time; sends nothing';

CREATE FUNCTION sendcampaign.send_test(campaign_id bigint, phone text,
    recipients text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_send_test'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.send_test(bigint, text, text) IS
'Sends the first recipient''s message to a phone number of your own; returns the job number of the test, which is negative';

CREATE FUNCTION sendcampaign.retry_failed(job_id bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_retry_failed'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.retry_failed(bigint) IS
'Retries the failed messages of a completed run that Twilio did not refuse for good; returns how many';

CREATE PROCEDURE sendcampaign.wait(job_id bigint, timeout interval DEFAULT NULL)
AS 'MODULE_PATHNAME', 'sendcampaign_wait'
LANGUAGE C;
COMMENT ON PROCEDURE sendcampaign.wait(bigint, interval) IS
'Returns when a run has ended; raises an error if that takes longer than the timeout';

CREATE FUNCTION sendcampaign.forget(before timestamptz)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_forget'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.forget(timestamptz) IS
'Deletes the runs that ended before a given time, with their messages; returns how many. A job whose run has been deleted can be sent again';

CREATE FUNCTION sendcampaign.forget_recipient(phone text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_forget_recipient'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.forget_recipient(text) IS
'Erases a phone number from messages, with Twilio''s SIDs and error texts; returns the number of messages. Counts are kept';

CREATE FUNCTION sendcampaign.reconcile(job_id bigint)
RETURNS TABLE (difference text, list_user_id bigint, phone text, sid text, recorded text,
    listed text, created_at timestamptz)
AS 'MODULE_PATHNAME', 'sendcampaign_reconcile'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.reconcile(bigint) IS
'Reads Twilio''s list of messages and compares it with what is recorded of a run; returns a row for each difference, none if all is well';

CREATE FUNCTION sendcampaign.receive(url text, signature text, body text)
RETURNS text
AS 'MODULE_PATHNAME', 'sendcampaign_receive'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.receive(text, text, text) IS
'Takes a request of Twilio''s to a web server: what became of a message, or a reply. url is what was requested, signature the header X-Twilio-Signature, body the form as it was posted. Returns receipt, reply, known or ignored; raises an error unless Twilio has signed it';

CREATE FUNCTION sendcampaign.track(yu bigint, yc bigint, event text, signature text DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sendcampaign_track'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.track(bigint, bigint, text, text) IS
'Records what a recipient has done with a link, whose parameters yu, yc and ys are the arguments: open, complete, or another event. Returns true the first time; false also if no such link was sent';

CREATE FUNCTION sendcampaign.summary(job_id bigint)
RETURNS TABLE (measure text, value numeric, unit text, percent numeric, percent_of text)
LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tables name := coalesce(nullif(current_setting('sendcampaign.schema', true), ''), 'public');
    run record;
    r record;
BEGIN
    SELECT n.id, n.total INTO run
    FROM sendcampaign.run n WHERE n.job_id = summary.job_id AND n.schema = tables;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no run of background job %', summary.job_id
            USING ERRCODE = 'no_data_found',
                HINT = 'See sendcampaign.run for the runs that your role may see.';
    END IF;
    -- each recipient is read once, whatever the number of currencies
    WITH parts AS (
        SELECT t.price_unit, count(*) AS known,
               count(*) FILTER (WHERE t.status = 'sent') AS sent,
               count(*) FILTER (WHERE t.status = 'failed') AS failed,
               count(*) FILTER (WHERE t.status = 'skipped') AS skipped,
               count(*) FILTER (WHERE t.status = 'in_doubt') AS in_doubt,
               count(*) FILTER (WHERE t.delivery IN ('delivered', 'read')) AS delivered,
               count(*) FILTER (WHERE t.delivery IN ('undelivered', 'failed', 'canceled'))
                   AS undelivered,
               count(t.opened_at) AS opened,
               count(t.completed_at) AS completed,
               count(*) FILTER (WHERE t.replies > 0) AS replied,
               count(*) FILTER (WHERE t.opted_out AND t.status = 'sent') AS opted_out,
               sum(t.segments) AS segments, sum(t.price) AS price
        FROM sendcampaign.result t WHERE t.run_id = run.id GROUP BY t.price_unit)
    SELECT coalesce(sum(p.known), 0) AS known, coalesce(sum(p.sent), 0) AS sent,
           coalesce(sum(p.failed), 0) AS failed, coalesce(sum(p.skipped), 0) AS skipped,
           coalesce(sum(p.in_doubt), 0) AS in_doubt, coalesce(sum(p.delivered), 0) AS delivered,
           coalesce(sum(p.undelivered), 0) AS undelivered, coalesce(sum(p.opened), 0) AS opened,
           coalesce(sum(p.completed), 0) AS completed, coalesce(sum(p.replied), 0) AS replied,
           coalesce(sum(p.opted_out), 0) AS opted_out, coalesce(sum(p.segments), 0) AS segments,
           array_agg(p.price ORDER BY p.price_unit) FILTER (WHERE p.price IS NOT NULL) AS prices,
           array_agg(p.price_unit ORDER BY p.price_unit) FILTER (WHERE p.price IS NOT NULL) AS units
    INTO r FROM parts p;
    run.total := coalesce(run.total, r.known);
    RETURN QUERY
    SELECT v.measure, v.value, v.unit, round(100 * v.value / nullif(v.whole, 0), 1), v.percent_of
    FROM (VALUES
        (1, 'recipients', run.total::numeric, NULL::text, NULL::numeric, NULL::text),
        (2, 'sent', r.sent, NULL, run.total, 'recipients'),
        (3, 'failed', r.failed, NULL, run.total, 'recipients'),
        (4, 'skipped', r.skipped, NULL, run.total, 'recipients'),
        (5, 'in doubt', r.in_doubt, NULL, run.total, 'recipients'),
        (6, 'remaining', run.total - r.known, NULL, run.total, 'recipients'),
        (7, 'delivered', r.delivered, NULL, r.sent, 'sent'),
        (8, 'undelivered', r.undelivered, NULL, r.sent, 'sent'),
        (9, 'opened', r.opened, NULL, r.sent, 'sent'),
        (10, 'completed', r.completed, NULL, r.opened, 'opened'),
        (11, 'replied', r.replied, NULL, r.sent, 'sent'),
        (12, 'opted out', r.opted_out, NULL, r.sent, 'sent'),
        (13, 'segments', r.segments, NULL, NULL, NULL)
    ) v(n, measure, value, unit, whole, percent_of)
    ORDER BY v.n;
    RETURN QUERY
    SELECT 'price', p.price, p.unit, NULL::numeric, NULL::text
    FROM unnest(r.prices, r.units) p(price, unit);
END
$$;
COMMENT ON FUNCTION sendcampaign.summary(bigint) IS
'Totals of a run, and of what each is a percentage: recipients, sent, delivered, opened, completed and so on, segments, and a price for each currency';

CREATE FUNCTION sendcampaign.csv_cell(value text)
RETURNS text
AS 'MODULE_PATHNAME', 'sendcampaign_csv_cell'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.csv_cell(text) IS
'The text in a form that no spreadsheet takes for a formula: an apostrophe precedes what would begin one';

CREATE FUNCTION sendcampaign.bucket(list_user_id bigint, salt text, buckets integer)
RETURNS integer
AS 'MODULE_PATHNAME', 'sendcampaign_bucket'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.bucket(bigint, text, integer) IS
'Divides list users evenly into parts, numbered from 0, in a way that never changes; another salt divides them independently';

CREATE FUNCTION sendcampaign.segments(
    message text, OUT encoding text, OUT units integer, OUT segments integer)
AS 'MODULE_PATHNAME', 'sendcampaign_segments'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.segments(text) IS
'What a text costs: its encoding, its length in GSM-7 septets or UTF-16 units, and the segments it is sent in';

CREATE FUNCTION sendcampaign.country(phone text)
RETURNS text
AS 'MODULE_PATHNAME', 'sendcampaign_country'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.country(text) IS
'Country of a phone number in E.164 form, by its calling code; null if that is not known';

CREATE FUNCTION sendcampaign.sender_of(phone text, senders text[])
RETURNS text
AS 'MODULE_PATHNAME', 'sendcampaign_sender_of'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.sender_of(text, text[]) IS
'The one of several senders that a phone number gets its messages from';

-- Messages of a million recipients are joined by several processes and added up in memory: sorting
-- them, on disk, or compiling the plan would take longer than the rest.
CREATE FUNCTION sendcampaign.report(job_id bigint DEFAULT NULL, phones boolean DEFAULT false)
RETURNS text
AS 'MODULE_PATHNAME', 'sendcampaign_report'
LANGUAGE C STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET work_mem = '64MB'
SET enable_sort = off
SET parallel_tuple_cost = 0
SET jit = off;
COMMENT ON FUNCTION sendcampaign.report(bigint, boolean) IS
'A page of HTML about the run of a job, or an overview of all runs that the role may see; phone numbers and texts of recipients only if asked for';

CREATE FUNCTION sendcampaign.version()
RETURNS text
AS 'MODULE_PATHNAME', 'sendcampaign_version'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.version() IS 'Version of the library';

CREATE FUNCTION sendcampaign.create_list(group_id bigint, name text DEFAULT NULL,
    user_id bigint DEFAULT NULL, columns jsonb DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_create_list'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.create_list(bigint, text, bigint, jsonb) IS
'Creates an empty list of a group; returns its id';

CREATE FUNCTION sendcampaign.create_campaign(list_id bigint, message text,
    base_url text DEFAULT NULL, user_id bigint DEFAULT NULL, columns jsonb DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_create_campaign'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.create_campaign(bigint, text, text, bigint, jsonb) IS
'Creates a campaign that sends a message to a list; returns its id. Sends nothing';

CREATE FUNCTION sendcampaign.add_list_users(list_id bigint, phones text[],
    user_id bigint DEFAULT NULL, columns jsonb DEFAULT NULL)
RETURNS TABLE ("position" bigint, phone text, refused text)
AS 'MODULE_PATHNAME', 'sendcampaign_add_phones'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.add_list_users(bigint, text[], bigint, jsonb) IS
'Adds users with these phone numbers to a list; returns those that it has refused, and why';

CREATE FUNCTION sendcampaign.add_list_users(list_id bigint, users jsonb,
    user_id bigint DEFAULT NULL, columns jsonb DEFAULT NULL)
RETURNS TABLE ("position" bigint, phone text, refused text)
AS 'MODULE_PATHNAME', 'sendcampaign_add_users'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.add_list_users(bigint, jsonb, bigint, jsonb) IS
'Adds users to a list: an array of objects with the phone number as "sms", and values for the text''s placeholders; returns those that it has refused, and why';

CREATE FUNCTION sendcampaign.send_message(group_id bigint, message text, phones text[],
    base_url text DEFAULT NULL, user_id bigint DEFAULT NULL, columns jsonb DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_send_to_phones'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.send_message(bigint, text, text[], text, bigint, jsonb) IS
'Creates a list with these phone numbers and a campaign, and sends it once the transaction commits; returns the id of the background job';

CREATE FUNCTION sendcampaign.send_message(group_id bigint, message text, users jsonb,
    base_url text DEFAULT NULL, user_id bigint DEFAULT NULL, columns jsonb DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sendcampaign_send_to_users'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.send_message(bigint, text, jsonb, text, bigint, jsonb) IS
'The same with users as add_list_users() takes them';

CREATE FUNCTION sendcampaign.create_tables(schema name DEFAULT 'public')
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing record;
    foreign_table record;
BEGIN
    IF create_tables.schema IS NULL THEN
        RAISE EXCEPTION 'schema must not be null'
            USING ERRCODE = 'null_value_not_allowed',
                HINT = 'Leave it out for the schema "public".';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace s WHERE s.nspname = create_tables.schema) THEN
        RAISE EXCEPTION 'schema "%" does not exist', create_tables.schema
            USING ERRCODE = 'invalid_schema_name',
                HINT = format('Create it with CREATE SCHEMA %I.', create_tables.schema);
    END IF;
    -- Code of the tables runs as the role that sends.  It must not belong to
    -- anybody who could not act as this role anyway.  From PostgreSQL 16 on,
    -- being a member does not imply the right to SET ROLE.
    SELECT c.relname AS name, o.rolname AS owner, me.rolname AS caller INTO foreign_table
    FROM pg_class c
    JOIN pg_namespace s ON s.oid = c.relnamespace
    JOIN pg_database d ON d.datname = current_database()
    JOIN pg_roles o ON o.oid = CASE WHEN c.relowner = 'pg_database_owner'::regrole
                                    THEN d.datdba ELSE c.relowner END
    JOIN pg_roles me ON me.rolname = current_user
    WHERE s.nspname = create_tables.schema
      AND c.relname IN ('groups', 'ac_lists', 'ac_campaigns', 'ac_list_users', 'ac_background_jobs')
      AND NOT o.rolsuper AND o.oid <> me.oid
      AND (me.rolsuper OR NOT (pg_has_role(o.oid, me.oid, 'USAGE')
           OR pg_has_role(o.oid, me.oid, CASE WHEN current_setting('server_version_num')::integer < 160000
                                              THEN 'MEMBER' ELSE 'SET' END)))
    ORDER BY c.relname LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'table "%.%" belongs to role "%"', create_tables.schema,
                foreign_table.name, foreign_table.owner
            USING ERRCODE = 'insufficient_privilege',
                DETAIL = format('Its triggers, defaults and policies would run with the rights of role "%s"'
                    ' when that role uses it.', foreign_table.caller),
                HINT = 'Have that role create all of the tables, choose another schema,'
                    ' or change the table''s owner.';
    END IF;
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
'Creates the application''s tables that are missing in a schema';

-- nobody may call a function until that is granted
REVOKE ALL ON FUNCTION @extschema@.send_campaign(bigint, bigint, text) FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA sendcampaign FROM PUBLIC;
