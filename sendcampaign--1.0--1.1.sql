/* sendcampaign--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION sendcampaign UPDATE TO '1.1'" to load this file. \quit

-- names and operators below are PostgreSQL's own, even if others create theirs
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- The server, or this session, may have loaded the library before its file was replaced
DO $$
BEGIN
    IF pg_catalog.string_to_array(sendcampaign.version(), '.')::integer[] < ARRAY[1, 1] THEN
        RAISE EXCEPTION 'the library that is loaded is sendcampaign %', sendcampaign.version()
            USING ERRCODE = 'object_not_in_prerequisite_state',
                DETAIL = 'This session, or the server, has loaded it before its file was replaced.',
                HINT = 'Update the extension in a new session; if shared_preload_libraries names'
                    ' sendcampaign, restart the server first.';
    END IF;
END
$$;

-- Whoever has granted rights keeps them: EXECUTE is revoked from PUBLIC for each new function alone

/*
 * Several nodes, with Citus.  An opt-out is written on the node where it was
 * learned, which needs no other node, and then told to the others: for each of
 * them it waits here until that node has it.
 */

CREATE TABLE sendcampaign.opt_out_change (
    phone text NOT NULL,
    schema name,
    group_id bigint,
    role name NOT NULL,
    opted_out boolean NOT NULL,
    reason text,
    source text,
    created_at timestamptz,
    changed_at timestamptz NOT NULL,
    waiting integer[] NOT NULL,
    UNIQUE NULLS NOT DISTINCT (phone, schema, group_id, role)
);
CREATE INDEX opt_out_change_waiting ON sendcampaign.opt_out_change (role, waiting, changed_at)
    WHERE waiting <> '{}';
COMMENT ON TABLE sendcampaign.opt_out_change IS
'With Citus: the last change of each opt-out, and which nodes do not have it yet. The later change counts, on whichever node it was made';
COMMENT ON COLUMN sendcampaign.opt_out_change.opted_out IS 'False if the opt-out was deleted';
COMMENT ON COLUMN sendcampaign.opt_out_change.waiting IS 'Groups of the nodes (pg_dist_node.groupid) that do not have it yet';

CREATE TABLE sendcampaign.opt_out_node (
    node_group integer PRIMARY KEY,
    has_all boolean NOT NULL DEFAULT false,
    last_phone text DEFAULT '',
    unaware_below xid8 NOT NULL
        DEFAULT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()),
    again boolean NOT NULL DEFAULT true,
    failures integer NOT NULL DEFAULT 0,
    retry_at timestamptz NOT NULL DEFAULT '-infinity',
    error text
);
COMMENT ON TABLE sendcampaign.opt_out_node IS
'With Citus: the other nodes, and whether they have the opt-outs of this one';
COMMENT ON COLUMN sendcampaign.opt_out_node.has_all IS 'True once the node has all opt-outs that were here when it was added';
COMMENT ON COLUMN sendcampaign.opt_out_node.last_phone IS 'Until then: the last phone number whose opt-outs it has; null if it has been told all, and is told all once more when the transactions have ended that did not know of it';
COMMENT ON COLUMN sendcampaign.opt_out_node.unaware_below IS 'Transactions before this one may have changed opt-outs without knowing of the node';
COMMENT ON COLUMN sendcampaign.opt_out_node.again IS 'True if such transactions were there when we began to tell it all, so that this has to be done once more';
COMMENT ON COLUMN sendcampaign.opt_out_node.retry_at IS 'When it is tried again, as it could not be reached';

-- Neither is dumped: elsewhere there are other nodes, and what opt_out_data gets there is noted.
GRANT SELECT ON sendcampaign.opt_out_change, sendcampaign.opt_out_node TO pg_database_owner;

CREATE FUNCTION sendcampaign.start_courier()
RETURNS void
AS 'MODULE_PATHNAME', 'sendcampaign_start_courier'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION sendcampaign.start_courier() IS
'Makes the commit start the process that tells opt-outs to other nodes; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.start_courier() FROM PUBLIC;

CREATE FUNCTION sendcampaign.other_nodes(disabled_too boolean DEFAULT false)
RETURNS TABLE (node_group integer, host text, port integer)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass('pg_catalog.pg_dist_local_group') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT n.groupid, n.nodename::text, n.nodeport
        FROM pg_dist_node n
        WHERE n.noderole = 'primary' AND (n.isactive OR disabled_too)
          AND n.nodecluster = coalesce(nullif(current_setting('citus.cluster_name', true), ''),
                                     'default') -- if Citus is not preloaded
          AND n.groupid NOT IN (SELECT l.groupid FROM pg_dist_local_group l)
        ORDER BY n.groupid;
END
$$;
COMMENT ON FUNCTION sendcampaign.other_nodes(boolean) IS 'With Citus: the nodes other than this one';
REVOKE ALL ON FUNCTION sendcampaign.other_nodes(boolean) FROM PUBLIC;

/*
 * What another node has told us is in opt_out_change before it is here, so it is no
 * change.  Other nodes know a role by its name: if that of a role which was dropped
 * has an opt-out left, it is told.  They get the beginning of a long reason.
 */
CREATE FUNCTION sendcampaign.note_opt_out()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    o sendcampaign.opt_out_data;
    still boolean := true;
BEGIN
    -- whoever may call it could let a table of their own say what others have opted out of
    IF TG_RELID <> 'sendcampaign.opt_out_data'::regclass THEN
        RAISE EXCEPTION 'note_opt_out() is for the table sendcampaign.opt_out_data alone'
            USING ERRCODE = 'insufficient_privilege',
                HINT = 'Call sendcampaign.opt_out() or sendcampaign.opt_in() instead.';
    END IF;
    IF TG_OP = 'DELETE' THEN
        -- Somebody may be deleting another one of that name: whoever comes second waits here, and
        -- sees what the first one has left.
        INSERT INTO sendcampaign.opt_out_change AS c
            (phone, schema, group_id, role, opted_out, changed_at, waiting)
        VALUES (OLD.phone, OLD.schema, OLD.group_id, OLD.role, true, '-infinity', '{}')
        ON CONFLICT (phone, schema, group_id, role) DO UPDATE SET phone = c.phone;
        SELECT * INTO o FROM sendcampaign.opt_out_data d
        WHERE d.phone = OLD.phone AND d.schema IS NOT DISTINCT FROM OLD.schema
          AND d.group_id IS NOT DISTINCT FROM OLD.group_id AND d.role = OLD.role
        ORDER BY d.created_at DESC LIMIT 1;
        still := FOUND;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        o := NEW;
    ELSIF NOT still THEN
        o := OLD;
    END IF;
    INSERT INTO sendcampaign.opt_out_change AS c
        (phone, schema, group_id, role, opted_out, reason, source, created_at, changed_at, waiting)
    VALUES (o.phone, o.schema, o.group_id, o.role, still, left(o.reason, 1000), o.source,
            o.created_at, clock_timestamp(),
            ARRAY(SELECT n.node_group FROM sendcampaign.other_nodes(disabled_too => true) n))
    ON CONFLICT (phone, schema, group_id, role) DO UPDATE SET
        opted_out = excluded.opted_out, reason = excluded.reason, source = excluded.source,
        created_at = excluded.created_at, waiting = excluded.waiting,
        changed_at = greatest(excluded.changed_at, c.changed_at + interval '1 microsecond')
    WHERE c.opted_out <> excluded.opted_out OR (c.opted_out AND (c.reason, c.source, c.created_at)
          IS DISTINCT FROM (excluded.reason, excluded.source, excluded.created_at));
    IF FOUND THEN
        PERFORM sendcampaign.start_courier();
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION sendcampaign.note_opt_out() IS
'With Citus: notes what other nodes are to be told about an opt-out';
REVOKE ALL ON FUNCTION sendcampaign.note_opt_out() FROM PUBLIC;
CREATE TRIGGER note_opt_out AFTER INSERT OR UPDATE OR DELETE ON sendcampaign.opt_out_data
    FOR EACH ROW WHEN (pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL)
    EXECUTE FUNCTION sendcampaign.note_opt_out();

-- For everybody: the view below calls it with the rights of whoever reads the view.
CREATE FUNCTION sendcampaign.name_is_common(relation oid)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sendcampaign_name_is_common'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sendcampaign.name_is_common(oid) IS
'Whether a table is what other nodes know by its name: with Citus, a table that is not distributed is the coordinator''s alone; else true';

/*
 * As in 1.0, but on a node of Citus that is not the coordinator, a schema that
 * somebody has created there alone shows nothing of one that has its name.
 */
CREATE OR REPLACE VIEW sendcampaign.opt_out WITH (security_barrier = true) AS
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
                 AND NOT pg_catalog.row_security_active(c.oid)
                 AND sendcampaign.name_is_common(c.oid)) END
   OR CASE WHEN o.system_identifier OPERATOR(pg_catalog.=)
                (SELECT c.system_identifier::numeric FROM pg_catalog.pg_control_system() c)
           THEN pg_catalog.pg_has_role(o.role_oid, 'MEMBER')
           ELSE EXISTS (SELECT FROM pg_catalog.pg_roles p
                        WHERE p.rolname OPERATOR(pg_catalog.=) o.role
                          AND pg_catalog.pg_has_role(p.oid, 'MEMBER')) END;

CREATE FUNCTION sendcampaign.check_extension_owner(function text)
RETURNS void
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r, pg_extension e WHERE r.rolname = current_user
                   AND e.extname = 'sendcampaign' AND (r.rolsuper OR r.oid = e.extowner)) THEN
        RAISE EXCEPTION 'permission denied for function %', function
            USING ERRCODE = 'insufficient_privilege',
                DETAIL = 'It reads and writes the opt-outs of all roles.',
                HINT = 'Have a superuser or the owner of the extension call it.';
    END IF;
END
$$;
COMMENT ON FUNCTION sendcampaign.check_extension_owner(text) IS
'Raises an error unless the role is a superuser or the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.check_extension_owner(text) FROM PUBLIC;

CREATE FUNCTION sendcampaign.take_opt_out(c sendcampaign.opt_out_change)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    here numeric := (pg_control_system()).system_identifier::numeric;
    role_here oid;
BEGIN
    PERFORM sendcampaign.check_extension_owner('take_opt_out');
    INSERT INTO sendcampaign.opt_out_change AS o SELECT c.*
    ON CONFLICT (phone, schema, group_id, role) DO UPDATE SET
        opted_out = excluded.opted_out, reason = excluded.reason, source = excluded.source,
        created_at = excluded.created_at, changed_at = excluded.changed_at, waiting = '{}'
    WHERE o.changed_at < excluded.changed_at;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF NOT c.opted_out THEN
        DELETE FROM sendcampaign.opt_out_data o WHERE o.phone = c.phone
            AND o.schema IS NOT DISTINCT FROM c.schema
            AND o.group_id IS NOT DISTINCT FROM c.group_id AND o.role = c.role;
        RETURN;
    END IF;
    -- On each node, the role has an OID of its own.  A role that is not here is known by its name
    -- alone, as in another cluster.
    SELECT r.oid INTO role_here FROM pg_roles r WHERE r.rolname = c.role;
    INSERT INTO sendcampaign.opt_out_data AS o
        (phone, schema, group_id, reason, role, role_oid, system_identifier, created_at, source)
    VALUES (c.phone, c.schema, c.group_id, c.reason, c.role,
            coalesce(role_here, (hashtext(c.role) & 2147483647)::oid),
            CASE WHEN role_here IS NULL THEN 0 ELSE here END, c.created_at, c.source)
    ON CONFLICT (phone, schema, group_id, role_oid) DO UPDATE SET
        reason = excluded.reason, created_at = excluded.created_at,
        source = CASE WHEN o.source = 'person' THEN o.source ELSE excluded.source END
    WHERE o.role = excluded.role AND (left(o.reason, 1000), o.source, o.created_at)
        IS DISTINCT FROM (excluded.reason, excluded.source, excluded.created_at);
END
$$;
COMMENT ON FUNCTION sendcampaign.take_opt_out(sendcampaign.opt_out_change) IS
'With Citus: takes a change of an opt-out, unless a later one is known; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.take_opt_out(sendcampaign.opt_out_change) FROM PUBLIC;

/*
 * Anybody may have locked an opt-out of their own, for as long as they like.
 * That keeps nobody else's from being taken, nor does an error of one of them.
 */
CREATE FUNCTION sendcampaign.take_opt_outs(changes jsonb)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
    most CONSTANT integer := 100; -- so many of a role are tried that cannot be taken
    change jsonb;
    not_taken jsonb[] := '{}';
    of_roles jsonb := '{}';
    num integer;
    failure text;
BEGIN
    PERFORM sendcampaign.check_extension_owner('take_opt_outs');
    BEGIN
        -- in one order, so that two nodes that tell us at once do not wait for each other
        PERFORM sendcampaign.take_opt_out(t.c)
        FROM (SELECT jsonb_populate_record(NULL::sendcampaign.opt_out_change,
                                           e.value || '{"waiting": []}') AS c
              FROM jsonb_array_elements(changes) e OFFSET 0) t
        ORDER BY (t.c).phone, (t.c).schema, (t.c).group_id, (t.c).role;
        RETURN '[]';
    EXCEPTION WHEN OTHERS THEN
        PERFORM set_config('lock_timeout', '2ms', true);
    END;
    FOR change IN SELECT e.value FROM jsonb_array_elements(changes) e ORDER BY random()
    LOOP
        num := coalesce((of_roles ->> (change ->> 'role'))::integer, 0);
        IF num < most THEN
            BEGIN
                PERFORM sendcampaign.take_opt_out(jsonb_populate_record(
                    NULL::sendcampaign.opt_out_change, change || '{"waiting": []}'));
                CONTINUE;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                NULL;
            WHEN OTHERS THEN
                failure := SQLERRM;
            END;
            of_roles := of_roles || jsonb_build_object(change ->> 'role', num + 1);
        END IF;
        not_taken := not_taken || change;
    END LOOP;
    IF failure IS NOT NULL THEN
        RAISE LOG 'sendcampaign: could not take an opt-out that another node tells: %', failure;
    END IF;
    RETURN to_jsonb(not_taken);
END
$$;
COMMENT ON FUNCTION sendcampaign.take_opt_outs(jsonb) IS
'With Citus: takes changes of opt-outs that another node tells, and returns those that it could not take, mostly because somebody has locked the opt-out; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.take_opt_outs(jsonb) FROM PUBLIC;

/*
 * Of which roles something waits, and for which nodes.  Each is found by the index,
 * which skips what waits of the one before, however much that is.
 */
CREATE FUNCTION sendcampaign.waiting_kinds()
RETURNS TABLE (role name, waiting integer[])
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off
SET enable_seqscan = off
SET enable_sort = off
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('waiting_kinds');
    RETURN QUERY WITH RECURSIVE k AS (
        (SELECT c.role, c.waiting FROM sendcampaign.opt_out_change c
         WHERE c.waiting <> '{}' ORDER BY c.role, c.waiting LIMIT 1)
        UNION ALL
        SELECT n.role, n.waiting FROM k,
            LATERAL (SELECT c.role, c.waiting FROM sendcampaign.opt_out_change c
                     WHERE c.waiting <> '{}' AND (c.role, c.waiting) > (k.role, k.waiting)
                     ORDER BY c.role, c.waiting LIMIT 1) n)
    SELECT k.role, k.waiting FROM k;
END
$$;
COMMENT ON FUNCTION sendcampaign.waiting_kinds() IS
'With Citus: the roles of which changes of opt-outs wait, and for which nodes; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.waiting_kinds() FROM PUBLIC;

CREATE FUNCTION sendcampaign.opt_outs_left(to_node integer DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    nodes integer[] := ARRAY(SELECT n.node_group
                             FROM sendcampaign.other_nodes(disabled_too => true) n
                             WHERE to_node IS NULL OR n.node_group = to_node);
BEGIN
    PERFORM sendcampaign.check_extension_owner('opt_outs_left');
    RETURN (SELECT count(*) FROM sendcampaign.opt_out_change c
            WHERE c.waiting <> '{}' AND c.waiting && nodes)
         + (SELECT count(*) FROM unnest(nodes) g
            WHERE NOT EXISTS (SELECT FROM sendcampaign.opt_out_node k
                              WHERE k.node_group = g AND k.has_all));
END
$$;
COMMENT ON FUNCTION sendcampaign.opt_outs_left(integer) IS
'With Citus: how many changes of opt-outs other nodes, or one, have not been told yet, and how many nodes do not have all from before; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.opt_outs_left(integer) FROM PUBLIC;

-- A node that is disabled is not tried, so nothing is due for it.
CREATE FUNCTION sendcampaign.opt_outs_are_due()
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    nodes integer[] := ARRAY(SELECT n.node_group FROM sendcampaign.other_nodes() n);
BEGIN
    PERFORM sendcampaign.check_extension_owner('opt_outs_are_due');
    RETURN EXISTS (SELECT FROM unnest(nodes) g
                   WHERE NOT EXISTS (SELECT FROM sendcampaign.opt_out_node k
                                     WHERE k.node_group = g AND k.has_all))
        OR EXISTS (SELECT FROM sendcampaign.waiting_kinds() k WHERE k.waiting && nodes);
END
$$;
COMMENT ON FUNCTION sendcampaign.opt_outs_are_due() IS
'With Citus: whether there is something to be told to a node that is not disabled; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.opt_outs_are_due() FROM PUBLIC;

-- Returns false if somebody has locked the change here, too: they may roll back.
CREATE FUNCTION sendcampaign.keep_waiting(change jsonb, node_group integer)
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2ms'
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('keep_waiting');
    INSERT INTO sendcampaign.opt_out_change AS c
    SELECT t.* FROM jsonb_populate_record(NULL::sendcampaign.opt_out_change,
        change || jsonb_build_object('waiting', ARRAY[node_group])) t
    ON CONFLICT (phone, schema, group_id, role) DO UPDATE
        SET waiting = array_remove(c.waiting, keep_waiting.node_group) || keep_waiting.node_group;
    RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION sendcampaign.keep_waiting(jsonb, integer) IS
'With Citus: notes that a node has not taken a change of an opt-out, unless it is locked here, too; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.keep_waiting(jsonb, integer) FROM PUBLIC;

CREATE FUNCTION sendcampaign.node_failed(node_group integer, error text)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('node_failed');
    UPDATE sendcampaign.opt_out_node k SET error = node_failed.error, failures = k.failures + 1,
        retry_at = clock_timestamp() + least(power(2, least(k.failures, 6)), 60) * interval '1 s'
    WHERE k.node_group = node_failed.node_group;
END
$$;
COMMENT ON FUNCTION sendcampaign.node_failed(integer, text) IS
'With Citus: notes that a node could not be told opt-outs, and when it is tried again; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.node_failed(integer, text) FROM PUBLIC;

/*
 * Some of what waits for a node.  Each role has its share, so that nobody waits for
 * what another one has opted out: half of it for the last changes, half for those
 * before some moment, since the last ones may be locked there for long.  Neither
 * reads what waits beyond that.  "more" is true if a role has used up its share.
 */
CREATE FUNCTION sendcampaign.waiting_opt_outs(node sendcampaign.opt_out_node, most integer,
    before timestamptz, OUT changes jsonb, OUT more boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off
SET enable_seqscan = off
SET enable_sort = off
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('waiting_opt_outs');
    WITH kinds AS MATERIALIZED (
        SELECT k.role, k.waiting, count(*) OVER (PARTITION BY k.role) AS of_role
        FROM sendcampaign.waiting_kinds() k WHERE node.node_group = ANY (k.waiting)),
    shares AS MATERIALIZED (
        SELECT k.role, k.waiting, e.first + random() * (e.last - e.first) AS moment,
            greatest(most / 2 / (SELECT count(DISTINCT r.role) FROM kinds r) / k.of_role, 1)
                AS share
        FROM kinds k, LATERAL (SELECT
            greatest((SELECT w.changed_at FROM sendcampaign.opt_out_change w
                      WHERE w.waiting <> '{}' AND w.role = k.role AND w.waiting = k.waiting
                      ORDER BY w.changed_at LIMIT 1), '2000-01-01') AS first,
            least((SELECT w.changed_at FROM sendcampaign.opt_out_change w
                   WHERE w.waiting <> '{}' AND w.role = k.role AND w.waiting = k.waiting
                     AND w.changed_at <= before
                   ORDER BY w.changed_at DESC LIMIT 1), clock_timestamp()) AS last) e
        ORDER BY random())
    SELECT coalesce(jsonb_agg(to_jsonb(c) - 'waiting'), '[]'),
           count(*) >= (SELECT min(s.share) FROM shares s)
    INTO changes, more
    FROM (SELECT w.* FROM shares s, LATERAL (
              (SELECT * FROM sendcampaign.opt_out_change w
               WHERE w.waiting <> '{}' AND w.role = s.role AND w.waiting = s.waiting
                 AND w.changed_at <= before
               ORDER BY w.changed_at DESC LIMIT s.share)
              UNION
              (SELECT * FROM sendcampaign.opt_out_change w
               WHERE w.waiting <> '{}' AND w.role = s.role AND w.waiting = s.waiting
                 AND w.changed_at <= least(s.moment, before)
               ORDER BY w.changed_at DESC LIMIT s.share)) w
          LIMIT most) c;
END
$$;
COMMENT ON FUNCTION sendcampaign.waiting_opt_outs(sendcampaign.opt_out_node, integer, timestamptz) IS
'With Citus: some of the changes of opt-outs that wait for a node, of each role; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.waiting_opt_outs(sendcampaign.opt_out_node, integer, timestamptz) FROM PUBLIC;

/*
 * All that is known here and does not wait for the node, some phone numbers at a
 * time.  The index on phones finds them, without those before.
 */
CREATE FUNCTION sendcampaign.known_opt_outs(node sendcampaign.opt_out_node, most integer,
    OUT changes jsonb, OUT last text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('known_opt_outs');
    SELECT max(p.phone) INTO last
    FROM (SELECT a.phone
          FROM ((SELECT o.phone FROM sendcampaign.opt_out_data o
                 WHERE o.phone > node.last_phone ORDER BY o.phone LIMIT most)
                UNION
                (SELECT w.phone FROM sendcampaign.opt_out_change w
                 WHERE w.phone > node.last_phone ORDER BY w.phone LIMIT most)) a
          ORDER BY a.phone LIMIT most) p;
    SELECT coalesce(jsonb_agg(to_jsonb(c) - 'waiting'), '[]') INTO changes
    FROM (SELECT w.* FROM sendcampaign.opt_out_change w
          WHERE w.phone > node.last_phone AND w.phone <= last
            AND NOT w.waiting @> ARRAY[node.node_group]
          UNION ALL
          SELECT DISTINCT ON (o.phone, o.schema, o.group_id, o.role)
                 o.phone, o.schema, o.group_id, o.role, true, left(o.reason, 1000), o.source,
                 o.created_at, o.created_at, '{}'::integer[]
          FROM sendcampaign.opt_out_data o
          WHERE o.phone > node.last_phone AND o.phone <= last AND NOT EXISTS
              (SELECT FROM sendcampaign.opt_out_change w
               WHERE w.phone = o.phone AND w.schema IS NOT DISTINCT FROM o.schema
                 AND w.group_id IS NOT DISTINCT FROM o.group_id AND w.role = o.role
                 AND w.phone > node.last_phone AND w.phone <= last)) c;
END
$$;
COMMENT ON FUNCTION sendcampaign.known_opt_outs(sendcampaign.opt_out_node, integer) IS
'With Citus: the opt-outs of the next phone numbers, for a node that does not have all; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.known_opt_outs(sendcampaign.opt_out_node, integer) FROM PUBLIC;

/*
 * Marks what a node has been told, unless it has changed again, or is locked here.
 * Returns how many are marked, and whether what it could not take waits for it.
 */
CREATE FUNCTION sendcampaign.mark_told(node_group integer, changes jsonb, locked jsonb,
    OUT marked integer, OUT kept boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    change jsonb;
BEGIN
    PERFORM sendcampaign.check_extension_owner('mark_told');
    UPDATE sendcampaign.opt_out_change c
    SET waiting = array_remove(c.waiting, mark_told.node_group)
    FROM (SELECT w.phone, w.schema, w.group_id, w.role
          FROM sendcampaign.opt_out_change w
          JOIN jsonb_populate_recordset(NULL::sendcampaign.opt_out_change, changes) t
            ON w.phone = t.phone AND w.schema IS NOT DISTINCT FROM t.schema
           AND w.group_id IS NOT DISTINCT FROM t.group_id AND w.role = t.role
           AND w.changed_at = t.changed_at
          WHERE mark_told.node_group = ANY (w.waiting) AND to_jsonb(t) - 'waiting' NOT IN
              (SELECT l.value FROM jsonb_array_elements(locked) l)
          FOR NO KEY UPDATE OF w SKIP LOCKED) free
    WHERE c.phone = free.phone AND c.schema IS NOT DISTINCT FROM free.schema
      AND c.group_id IS NOT DISTINCT FROM free.group_id AND c.role = free.role;
    GET DIAGNOSTICS marked = ROW_COUNT;
    kept := true;
    FOR change IN
        SELECT l.value FROM jsonb_array_elements(locked) l
        WHERE NOT EXISTS
            (SELECT FROM sendcampaign.opt_out_change w
             JOIN jsonb_populate_record(NULL::sendcampaign.opt_out_change, l.value) t
               ON w.phone = t.phone AND w.schema IS NOT DISTINCT FROM t.schema
              AND w.group_id IS NOT DISTINCT FROM t.group_id AND w.role = t.role
             WHERE mark_told.node_group = ANY (w.waiting))
    LOOP
        kept := sendcampaign.keep_waiting(change, mark_told.node_group) AND kept;
    END LOOP;
END
$$;
COMMENT ON FUNCTION sendcampaign.mark_told(integer, jsonb, jsonb) IS
'With Citus: marks changes of opt-outs as told to a node, except those that it could not take; returns how many, and false if one of these is locked here, too. For the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.mark_told(integer, jsonb, jsonb) FROM PUBLIC;

/*
 * Telling them, a step at a time.  While other nodes are waited for, nothing that
 * the application could need is locked, but only their rows in opt_out_node: one
 * process at a time tells a node.  What has been told is marked afterwards.  If
 * that is lost, it is told once more, which does no harm.
 */

-- Returns whether there is one that we did not know.
CREATE FUNCTION sendcampaign.add_opt_out_nodes()
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('add_opt_out_nodes');
    INSERT INTO sendcampaign.opt_out_node (node_group)
    SELECT n.node_group FROM sendcampaign.other_nodes(disabled_too => true) n
    WHERE NOT EXISTS (SELECT FROM sendcampaign.opt_out_node k WHERE k.node_group = n.node_group)
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION sendcampaign.add_opt_out_nodes() IS
'With Citus: notes the nodes that are to be told opt-outs; returns whether there is one that was not known; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.add_opt_out_nodes() FROM PUBLIC;

-- For a node that is gone, nothing waits.
CREATE FUNCTION sendcampaign.forget_removed_nodes()
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('forget_removed_nodes');
    DELETE FROM sendcampaign.opt_out_node k
    WHERE k.node_group NOT IN (SELECT n.groupid FROM pg_dist_node n);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE sendcampaign.opt_out_change c
    SET waiting = ARRAY(SELECT g FROM unnest(c.waiting) g JOIN pg_dist_node n ON n.groupid = g)
    WHERE c.ctid = ANY (ARRAY(SELECT w.ctid FROM sendcampaign.opt_out_change w
                              WHERE w.waiting <> '{}' AND NOT w.waiting <@
                                  ARRAY(SELECT n.groupid FROM pg_dist_node n)
                              FOR NO KEY UPDATE SKIP LOCKED));
END
$$;
COMMENT ON FUNCTION sendcampaign.forget_removed_nodes() IS
'With Citus: what waits for a node that has been removed does so no longer; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.forget_removed_nodes() FROM PUBLIC;

-- Transactions apart, a snapshot that is older than the node does not show it to the trigger.
CREATE FUNCTION sendcampaign.is_known_to_all(node sendcampaign.opt_out_node)
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('is_known_to_all');
    RETURN pg_snapshot_xmin(pg_current_snapshot()) >= node.unaware_below
        AND NOT EXISTS (SELECT FROM pg_stat_activity a
                        WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
                          AND a.backend_type <> 'autovacuum worker'
                          AND age(a.backend_xmin) > age(node.unaware_below::xid));
END
$$;
COMMENT ON FUNCTION sendcampaign.is_known_to_all(sendcampaign.opt_out_node) IS
'With Citus: whether all transactions have ended that may have changed opt-outs without knowing of a node; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.is_known_to_all(sendcampaign.opt_out_node) FROM PUBLIC;

CREATE FUNCTION sendcampaign.store_node(node sendcampaign.opt_out_node)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('store_node');
    UPDATE sendcampaign.opt_out_node k
    SET has_all = node.has_all, last_phone = node.last_phone, again = node.again,
        unaware_below = node.unaware_below, failures = node.failures,
        retry_at = node.retry_at, error = node.error
    WHERE k.node_group = node.node_group AND k IS DISTINCT FROM node;
END
$$;
COMMENT ON FUNCTION sendcampaign.store_node(sendcampaign.opt_out_node) IS
'With Citus: stores what is known of a node, whose row must be locked; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.store_node(sendcampaign.opt_out_node) FROM PUBLIC;

-- "told" is the node as it will be once it has been told these.
CREATE FUNCTION sendcampaign.next_opt_outs(node sendcampaign.opt_out_node, before timestamptz,
    OUT told sendcampaign.opt_out_node, OUT changes jsonb, OUT more_wait boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most integer := CASE WHEN node.failures > 0 THEN 100 ELSE 2000 END;
    is_settled boolean;
    known record;
BEGIN
    PERFORM sendcampaign.check_extension_owner('next_opt_outs');
    is_settled := sendcampaign.is_known_to_all(node);
    told := node;
    IF NOT told.has_all AND (told.last_phone = '' OR told.last_phone IS NULL AND is_settled) THEN
        told.again := NOT is_settled;
        told.last_phone := '';
    END IF;
    SELECT w.changes, w.more INTO changes, more_wait
    FROM sendcampaign.waiting_opt_outs(told, most, before) w;
    IF NOT told.has_all AND told.last_phone IS NOT NULL THEN
        SELECT k.* INTO known FROM sendcampaign.known_opt_outs(told, most) k;
        changes := changes || known.changes;
        told.last_phone := known.last;
        told.has_all := known.last IS NULL AND NOT told.again;
    END IF;
    IF changes = '[]' THEN -- nobody is asked, so nobody fails
        told.failures := 0;
        told.retry_at := '-infinity';
        told.error := NULL;
    END IF;
END
$$;
COMMENT ON FUNCTION sendcampaign.next_opt_outs(sendcampaign.opt_out_node, timestamptz) IS
'With Citus: what a node is told next, and what its row is afterwards; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.next_opt_outs(sendcampaign.opt_out_node, timestamptz) FROM PUBLIC;

CREATE FUNCTION sendcampaign.take_answer(node sendcampaign.opt_out_node, changes jsonb, locked jsonb)
RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    told record;
BEGIN
    PERFORM sendcampaign.check_extension_owner('take_answer');
    SELECT m.* INTO told FROM sendcampaign.mark_told(node.node_group, changes, locked) m;
    IF NOT told.kept THEN
        node.has_all := false;
        node.again := true;
        node.unaware_below := pg_snapshot_xmax(pg_current_snapshot());
    END IF;
    IF jsonb_array_length(locked) < jsonb_array_length(changes) THEN
        node.failures := 0;
        node.retry_at := '-infinity';
        node.error := NULL;
    ELSIF node.failures > 0 THEN
        -- perhaps by those who have told it before, whose commits hang
        node.retry_at := clock_timestamp() + interval '1 s';
        node.error := 'all of it is locked there';
    END IF;
    PERFORM sendcampaign.store_node(node);
    RETURN told.marked;
END
$$;
COMMENT ON FUNCTION sendcampaign.take_answer(sendcampaign.opt_out_node, jsonb, jsonb) IS
'With Citus: notes that a node has taken changes of opt-outs, except those that are locked there; returns how many wait no longer. For the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.take_answer(sendcampaign.opt_out_node, jsonb, jsonb) FROM PUBLIC;

/*
 * The nodes that are told now.  One that has failed is told only if it is meant, so
 * that others do not wait for it, and each only if there is something to tell: its
 * row is locked afterwards, a lock is written, and commits may hang.
 */
CREATE FUNCTION sendcampaign.nodes_to_tell(to_node integer, before timestamptz)
RETURNS TABLE (node_group integer, host text, port integer)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('nodes_to_tell');
    RETURN QUERY
        WITH kinds AS MATERIALIZED (SELECT k.* FROM sendcampaign.waiting_kinds() k)
        SELECT n.* FROM sendcampaign.other_nodes(disabled_too => to_node IS NOT NULL) n
        JOIN sendcampaign.opt_out_node k ON k.node_group = n.node_group
        WHERE CASE WHEN to_node IS NULL THEN k.failures = 0 ELSE n.node_group = to_node END
          AND (NOT k.has_all OR k.failures > 0 OR EXISTS
               (SELECT FROM kinds w, LATERAL
                    (SELECT FROM sendcampaign.opt_out_change c
                     WHERE c.waiting <> '{}' AND c.role = w.role AND c.waiting = w.waiting
                       AND c.changed_at <= before LIMIT 1) c
                WHERE n.node_group = ANY (w.waiting)));
END
$$;
COMMENT ON FUNCTION sendcampaign.nodes_to_tell(integer, timestamptz) IS
'With Citus: the nodes for which there is something, or one if there is; for the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.nodes_to_tell(integer, timestamptz) FROM PUBLIC;

/*
 * A step, with changes that are so old, or all.  Returns 3 if the next step can
 * follow at once, 4 if so and a node does not have all from before it was added, 2
 * if others are telling these nodes, 1 if something is left that cannot be told now,
 * 0 if nothing is.  Where only one plan is wanted, the others are made to seem to cost
 * so much that code would be compiled for it.
 */
CREATE FUNCTION sendcampaign.tell_opt_outs(to_node integer DEFAULT NULL,
    older_than interval DEFAULT NULL)
RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    result integer := 0;
    before timestamptz := coalesce(clock_timestamp() - older_than, 'infinity');
    hosts text[] := '{}';
    ports integer[] := '{}';
    commands text[] := '{}';
    nodes sendcampaign.opt_out_node[] := '{}';
    batches jsonb[] := '{}';
    more_wait boolean[] := '{}';
    address record;
    node sendcampaign.opt_out_node;
    next record;
    told record;
    marked integer;
BEGIN
    PERFORM sendcampaign.check_extension_owner('tell_opt_outs');
    IF to_regclass('pg_catalog.pg_dist_local_group') IS NULL THEN
        RETURN 0;
    ELSIF sendcampaign.add_opt_out_nodes() THEN
        RETURN 3; -- so that nobody waits for these rows while we wait for nodes
    END IF;
    FOR address IN SELECT * FROM sendcampaign.nodes_to_tell(to_node, before) LOOP
        SELECT k.* INTO node FROM sendcampaign.opt_out_node k
        WHERE k.node_group = address.node_group FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            result := greatest(result, 2);
            CONTINUE;
        END IF;
        SELECT n.* INTO next FROM sendcampaign.next_opt_outs(node, before) n;
        IF next.changes = '[]' THEN
            node := next.told;
            PERFORM sendcampaign.store_node(node);
            IF node.last_phone IS NOT NULL AND NOT node.has_all THEN
                result := 4;
            END IF;
            CONTINUE;
        END IF;
        hosts := hosts || address.host;
        ports := ports || address.port;
        commands := commands || format('SELECT sendcampaign.take_opt_outs(%L)', next.changes);
        nodes := nodes || next.told;
        batches := batches || next.changes;
        more_wait := more_wait || next.more_wait;
    END LOOP;
    PERFORM set_config('citus.node_connection_timeout', '3000', true);
    FOR told IN
        SELECT r.success, r.result, a.i
        FROM master_run_on_worker(hosts, ports, commands, true) r
        JOIN unnest(hosts, ports) WITH ORDINALITY a(host, port, i)
          ON a.host = r.node_name AND a.port = r.node_port
        WHERE hosts <> '{}'
        ORDER BY a.i
    LOOP
        node := nodes[told.i];
        IF NOT told.success THEN
            PERFORM sendcampaign.node_failed(node.node_group, told.result);
            CONTINUE;
        END IF;
        marked := sendcampaign.take_answer(node, batches[told.i], told.result::jsonb);
        IF node.last_phone IS NOT NULL AND NOT node.has_all THEN
            result := 4;
        ELSIF more_wait[told.i] AND marked > 0 THEN -- else they are locked here or there
            result := greatest(result, 3);
        END IF;
    END LOOP;
    PERFORM sendcampaign.forget_removed_nodes();
    IF result = 0 AND to_node IS NULL AND (EXISTS
            (SELECT FROM sendcampaign.other_nodes() n JOIN sendcampaign.opt_out_node k
             ON k.node_group = n.node_group WHERE k.failures > 0)
            OR sendcampaign.opt_outs_are_due()) THEN
        RETURN 1;
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION sendcampaign.tell_opt_outs(integer, interval) IS
'With Citus: tells opt-outs to the other nodes, or to one, as many as go in one step; returns 3 if the next step can follow at once, 4 if so and a node does not have all from before, 2 if somebody else is telling them, 1 if something is left, 0 if nothing is. For the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.tell_opt_outs(integer, interval) FROM PUBLIC;

CREATE FUNCTION sendcampaign.share_opt_outs(to_node integer DEFAULT NULL, everything boolean DEFAULT false)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sendcampaign.check_extension_owner('share_opt_outs');
    IF to_regclass('pg_catalog.pg_dist_local_group') IS NULL THEN
        RETURN 0;
    END IF;
    IF everything THEN
        UPDATE sendcampaign.opt_out_node k SET has_all = false, last_phone = '', again = true,
            unaware_below = pg_snapshot_xmax(pg_current_snapshot())
        WHERE to_node IS NULL OR k.node_group = to_node;
        PERFORM sendcampaign.start_courier();
    ELSE
        PERFORM sendcampaign.tell_opt_outs(to_node);
    END IF;
    RETURN sendcampaign.opt_outs_left(to_node);
END
$$;
COMMENT ON FUNCTION sendcampaign.share_opt_outs(integer, boolean) IS
'With Citus: tells opt-outs to the other nodes, or to one, as many as go in one step, or has the process begin anew with all of them; returns how many are left. For the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.share_opt_outs(integer, boolean) FROM PUBLIC;

CREATE FUNCTION sendcampaign.fetch_opt_outs(from_node integer DEFAULT NULL,
    older_than interval DEFAULT NULL)
RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    command text;
    answer integer;
BEGIN
    PERFORM sendcampaign.check_extension_owner('fetch_opt_outs');
    IF to_regclass('pg_catalog.pg_dist_local_group') IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM set_config('citus.node_connection_timeout', '3000', true);
    command := format('SELECT sendcampaign.tell_opt_outs(%s, %L)',
                      (SELECT groupid FROM pg_dist_local_group), older_than);
    SELECT max(r.result::integer) FILTER (WHERE r.success) INTO answer
    FROM (SELECT array_agg(n.host) AS hosts, array_agg(n.port) AS ports,
                 array_agg(command) AS commands FROM sendcampaign.other_nodes() n
          WHERE from_node IS NULL OR n.node_group = from_node) n,
         master_run_on_worker(n.hosts, n.ports, n.commands, true) r
    WHERE n.hosts IS NOT NULL;
    RETURN coalesce(answer, 0);
END
$$;
COMMENT ON FUNCTION sendcampaign.fetch_opt_outs(integer, interval) IS
'With Citus: has the other nodes, or one, tell this one some of what it has missed of opt-outs, of changes that are so old, or of all; returns the largest of what tell_opt_outs() returns on those that have answered. For the extension''s owner';
REVOKE ALL ON FUNCTION sendcampaign.fetch_opt_outs(integer, interval) FROM PUBLIC;

/*
 * Queries on all nodes, and on a schema's home.  Citus connects to the other
 * nodes as the role that calls, so they run with its rights there.  The search
 * path is the caller's, as it is in the query: so everything here is qualified.
 */

CREATE FUNCTION sendcampaign.on_all_nodes(query text)
RETURNS TABLE (node text, result jsonb, error text)
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
AS $$
DECLARE
    here pg_catalog.text;
    hosts pg_catalog.text[];
    ports pg_catalog.int4[];
    commands pg_catalog.text[];
    command pg_catalog.text;
    timeout pg_catalog.text;
    answer pg_catalog.record;
BEGIN
    command := pg_catalog.format(
        E'SELECT pg_catalog.to_jsonb(sendcampaign_row) FROM (%s\n) sendcampaign_row', query);
    here := pg_catalog.concat('localhost:', pg_catalog.current_setting('port'));
    IF pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL THEN
        here := coalesce((SELECT pg_catalog.concat(n.nodename, ':', n.nodeport)
            FROM pg_catalog.pg_dist_node n, pg_catalog.pg_dist_local_group l
            WHERE n.groupid OPERATOR(pg_catalog.=) l.groupid
              AND n.noderole OPERATOR(pg_catalog.=) 'primary'::pg_catalog.noderole LIMIT 1), here);
    END IF;
    FOR answer IN EXECUTE command LOOP
        node := here;
        result := answer.to_jsonb;
        RETURN NEXT;
    END LOOP;
    SELECT pg_catalog.array_agg(n.host), pg_catalog.array_agg(n.port),
           pg_catalog.array_agg(pg_catalog.format(
               $q$SELECT coalesce(pg_catalog.jsonb_agg(r.to_jsonb), '[]') FROM (%s) r$q$, command))
    INTO hosts, ports, commands FROM sendcampaign.other_nodes() n;
    IF hosts IS NULL THEN
        RETURN;
    END IF;
    timeout := pg_catalog.current_setting('citus.node_connection_timeout', true);
    PERFORM pg_catalog.set_config('citus.node_connection_timeout', '3000', true);
    FOR answer IN
        SELECT r.node_name, r.node_port, r.success, r.result
        FROM pg_catalog.master_run_on_worker(hosts, ports, commands, true) r
        ORDER BY r.node_name, r.node_port
    LOOP
        node := pg_catalog.concat(answer.node_name, ':', answer.node_port);
        IF NOT answer.success THEN
            result := NULL;
            error := answer.result;
            RETURN NEXT;
            CONTINUE;
        END IF;
        error := NULL;
        FOR result IN SELECT e.value
            FROM pg_catalog.jsonb_array_elements(answer.result::pg_catalog.jsonb) e
        LOOP
            RETURN NEXT;
        END LOOP;
    END LOOP;
    PERFORM pg_catalog.set_config('citus.node_connection_timeout', timeout, true);
END
$$;
COMMENT ON FUNCTION sendcampaign.on_all_nodes(text) IS
'Runs a query on this node and, with Citus, on all others, with the rights that the role has there. A node that cannot answer has one row that says why';
REVOKE ALL ON FUNCTION sendcampaign.on_all_nodes(text) FROM PUBLIC;

CREATE FUNCTION sendcampaign.home_node(schema name, OUT host text, OUT port integer, OUT is_here boolean)
RETURNS record
LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    home integer := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace s WHERE s.nspname = home_node.schema) THEN
        RAISE EXCEPTION 'schema "%" does not exist', home_node.schema
            USING ERRCODE = 'invalid_schema_name',
                HINT = 'Pass the schema that has the application''s tables.';
    END IF;
    host := 'localhost';
    port := current_setting('port')::integer;
    is_here := true;
    IF to_regclass('pg_catalog.pg_dist_local_group') IS NULL THEN
        RETURN;
    END IF;
    SELECT p.groupid INTO home
    FROM pg_namespace s
    JOIN pg_dist_schema t ON t.schemaid = s.oid
    JOIN pg_dist_partition d ON d.colocationid = t.colocationid
    JOIN pg_dist_shard h ON h.logicalrelid = d.logicalrelid
    JOIN pg_dist_placement p ON p.shardid = h.shardid
    WHERE s.nspname = home_node.schema LIMIT 1;
    home := coalesce(home, 0);
    is_here := home IN (SELECT l.groupid FROM pg_dist_local_group l);
    SELECT n.nodename, n.nodeport INTO host, port
    FROM pg_dist_node n WHERE n.groupid = home AND n.noderole = 'primary';
    IF NOT FOUND THEN
        host := 'localhost';
        port := CASE WHEN is_here THEN current_setting('port')::integer END;
    END IF;
END
$$;
COMMENT ON FUNCTION sendcampaign.home_node(name) IS
'The node that sends the campaigns of a schema: with Citus, the one that has it, or the coordinator if it is not distributed';
REVOKE ALL ON FUNCTION sendcampaign.home_node(name) FROM PUBLIC;

CREATE FUNCTION sendcampaign.at_home(schema name, query text, forwarded boolean DEFAULT false)
RETURNS SETOF jsonb
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
-- Afterwards the setting is whoever's it was before: restored by ourselves, it would be of the role
-- that calls us, which may be a SECURITY DEFINER function, and whose choice of tables is trusted.
SET sendcampaign.schema = 'public'
AS $$
DECLARE
    home pg_catalog.record;
    answer pg_catalog.record;
BEGIN
    SELECT * INTO home FROM sendcampaign.home_node(schema);
    IF home.is_here THEN
        PERFORM sendcampaign.version(); -- loads the library, which defines the setting
        PERFORM pg_catalog.set_config('sendcampaign.schema', schema::pg_catalog.text, true);
        RETURN QUERY EXECUTE pg_catalog.format(
            E'SELECT pg_catalog.to_jsonb(sendcampaign_row) FROM (%s\n) sendcampaign_row', query);
        RETURN;
    END IF;
    IF forwarded OR home.port IS NULL THEN
        RAISE EXCEPTION 'schema "%" is at home on another node', schema
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Call it again once the schema has moved.';
    END IF;
    SELECT r.success, r.result INTO answer
    FROM pg_catalog.master_run_on_worker(
        ARRAY[home.host]::pg_catalog.text[], ARRAY[home.port]::pg_catalog.int4[],
        ARRAY[pg_catalog.format($q$SELECT coalesce(pg_catalog.jsonb_agg(r), '[]')
            FROM sendcampaign.at_home(%L, %L, true) r$q$,
                                schema, query)], false) r;
    IF NOT answer.success THEN
        RAISE EXCEPTION 'the home of schema "%", node %:%, reports: %', schema, home.host, home.port,
                answer.result
            USING ERRCODE = 'external_routine_exception',
                HINT = 'See that the node is up and lets this role connect, or correct the query.';
    END IF;
    RETURN QUERY SELECT e.value
        FROM pg_catalog.jsonb_array_elements(answer.result::pg_catalog.jsonb) e;
END
$$;
COMMENT ON FUNCTION sendcampaign.at_home(name, text, boolean) IS
'Runs a query on the node that sends the campaigns of a schema, with sendcampaign.schema set to it and with the rights that the role has there, in a transaction of its own if that is another node';
REVOKE ALL ON FUNCTION sendcampaign.at_home(name, text, boolean) FROM PUBLIC;

/*
 * As in 1.0, but behind the point of a run's system_identifier is the group of
 * its node: the OID of its role means something there all the same.
 */
CREATE OR REPLACE VIEW sendcampaign.run WITH (security_barrier = true) AS
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
   OR CASE WHEN pg_catalog.trunc(r.system_identifier) OPERATOR(pg_catalog.=)
               (SELECT c.system_identifier::numeric FROM pg_catalog.pg_control_system() c)
           THEN pg_catalog.pg_has_role(r.role_oid, 'MEMBER')
           ELSE EXISTS (SELECT FROM pg_catalog.pg_roles p
                        WHERE p.rolname OPERATOR(pg_catalog.=) r.role
                          AND pg_catalog.pg_has_role(p.oid, 'MEMBER')) END;

CREATE VIEW sendcampaign.all_runs AS
SELECT n.node, n.error AS node_error, r.*
FROM sendcampaign.on_all_nodes('SELECT * FROM sendcampaign.run') n,
    LATERAL pg_catalog.jsonb_populate_record(NULL::sendcampaign.run, n.result) r;
COMMENT ON VIEW sendcampaign.all_runs IS 'The runs on all nodes, as sendcampaign.run shows them on each; a node that cannot answer has one row that says why';

CREATE VIEW sendcampaign.all_progress AS
SELECT n.node, n.error AS node_error, r.*
FROM sendcampaign.on_all_nodes('SELECT * FROM sendcampaign.progress') n,
    LATERAL pg_catalog.jsonb_populate_record(NULL::sendcampaign.progress, n.result) r;
COMMENT ON VIEW sendcampaign.all_progress IS 'The same of sendcampaign.progress';
GRANT SELECT ON sendcampaign.all_runs, sendcampaign.all_progress TO PUBLIC;

CREATE OR REPLACE FUNCTION sendcampaign.create_tables(schema name DEFAULT 'public')
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing record;
    foreign_table record;
    has_citus boolean := to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL;
    is_tenant boolean := false;
    command text;
    commands text[] := '{}';
    failure text;
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
    IF has_citus THEN
        is_tenant := EXISTS (SELECT FROM pg_dist_schema t JOIN pg_namespace s ON s.oid = t.schemaid
                             WHERE s.nspname = create_tables.schema);
        IF NOT is_tenant AND EXISTS (SELECT FROM pg_dist_local_group l WHERE l.groupid <> 0) THEN
            RAISE EXCEPTION 'schema "%" is not distributed, and this node is not the coordinator',
                    create_tables.schema
                USING ERRCODE = 'object_not_in_prerequisite_state',
                    DETAIL = 'No campaign is sent from tables that Citus does not know of on this'
                        ' node.',
                    HINT = 'Call the function on the coordinator, or distribute the schema there'
                        ' with citus_schema_distribute().';
        END IF;
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
        -- on other nodes than the coordinator, sequences of Citus need the range of bigint
        command := format('CREATE TABLE %I.%I (id %s PRIMARY KEY, %s,'
                          ' created_at timestamptz NOT NULL DEFAULT now(),'
                          ' updated_at timestamptz NOT NULL DEFAULT now())',
                          create_tables.schema, missing.name,
                          CASE WHEN has_citus THEN 'bigserial' ELSE 'serial' END,
                          CASE WHEN has_citus
                               THEN replace(missing.columns, '_id integer', '_id bigint')
                               ELSE missing.columns END);
        commands := commands || command;
        IF missing.name = 'ac_list_users' THEN
            commands := commands || format('CREATE INDEX ON %I.ac_list_users (ac_list_id)',
                                           create_tables.schema);
        END IF;
    END LOOP;
    IF NOT is_tenant THEN
        FOREACH command IN ARRAY commands LOOP
            EXECUTE command;
        END LOOP;
        RETURN;
    END IF;
    -- Citus makes a table a tenant's only by a command that is not in a function, on the
    -- coordinator
    SELECT r.result INTO failure
    FROM (SELECT coalesce(min(n.nodename), 'localhost') AS host,
                 coalesce(min(n.nodeport), current_setting('port')::integer) AS port
          FROM pg_dist_node n WHERE n.groupid = 0 AND n.noderole = 'primary') n,
        master_run_on_worker(array_fill(n.host, ARRAY[cardinality(commands)]),
                             array_fill(n.port, ARRAY[cardinality(commands)]), commands, false) r
    WHERE cardinality(commands) > 0 AND NOT r.success LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'could not create the tables of schema "%" on the coordinator: %',
                create_tables.schema, failure
            USING ERRCODE = 'external_routine_exception',
                HINT = 'Call it again once that is mended; it creates those that are missing.';
    END IF;
END
$$;

/*
 * Rows of other tables than run_data.  Those that the twin of another one keeps
 * from it stay.  If anything is in the way, the rows are taken one by one.
 */
CREATE FUNCTION sendcampaign.take_over_rows(relation regclass, former numeric[], unless text)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    here numeric := (pg_control_system()).system_identifier::numeric;
    condition text := format('o.system_identifier = ANY ($2) AND NOT EXISTS (SELECT FROM %s n'
                             ' WHERE n.system_identifier = $1 AND %s)', relation, unless);
    command text := format('UPDATE %s o SET system_identifier = $1 WHERE %s', relation, condition);
    place tid;
    failures bigint := 0;
    failure text;
BEGIN
    BEGIN
        EXECUTE command USING here, former;
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        PERFORM set_config('lock_timeout', '10ms', true);
    END;
    FOR place IN EXECUTE format('SELECT o.ctid FROM %s o WHERE %s', relation, condition)
        USING here, former
    LOOP
        BEGIN
            EXECUTE command || ' AND o.ctid = $3' USING here, former, place;
        EXCEPTION WHEN OTHERS THEN
            failures := failures + 1;
            failure := SQLERRM;
        END;
    END LOOP;
    IF failures > 0 THEN
        RAISE WARNING '% rows of % could not be taken over', failures, relation
            USING DETAIL = failure,
                HINT = 'They count as before, for the roles that have the names of those who entered'
                    ' them.';
    END IF;
END
$$;
COMMENT ON FUNCTION sendcampaign.take_over_rows(regclass, numeric[], text) IS
'For after_pg_upgrade(): takes over rows of a table that former clusters have entered';
REVOKE ALL ON FUNCTION sendcampaign.take_over_rows(regclass, numeric[], text) FROM PUBLIC;

/*
 * After pg_upgrade the cluster has another system identifier, as a copy of it has.
 * That it is no copy is a decision, which is an administrator's.  pg_upgrade keeps
 * the OIDs of databases and roles, and, in each row, the transaction that wrote it:
 * rows from elsewhere, which a dump has brought, are left as they are.
 *
 * This touches no table of an application, whose locks and triggers could keep
 * everybody's runs from going on.  With Citus, jobs have marks of the former
 * cluster: a worker takes them over when it comes to the run.
 */
CREATE FUNCTION sendcampaign.after_pg_upgrade()
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    here numeric := (pg_control_system()).system_identifier::numeric;
    database_here oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
    has_marks boolean := EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'citus');
    former numeric[];
    runs bigint;
    resumed bigint[];
    locked bigint;
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'only a superuser may call sendcampaign.after_pg_upgrade()'
            USING ERRCODE = 'insufficient_privilege',
                HINT = 'Have a superuser call it, once the old cluster cannot send any more.';
    END IF;
    WITH old AS MATERIALIZED (
        SELECT r.id, trunc(r.system_identifier) AS cluster,
               r.state = 'paused' AND r.paused_from IS NULL AND starts_with(r.error,
                   'the run was queued in another cluster or database') AS was_foreign
        FROM sendcampaign.run_data r
        WHERE trunc(r.system_identifier) <> here AND r.xmin = r.written_in
            AND r.database = database_here
        FOR NO KEY UPDATE SKIP LOCKED),
    taken AS (
        UPDATE sendcampaign.run_data r
        SET system_identifier = here + r.system_identifier % 1, -- the node's group
            -- nothing may be sent before what is in Twilio's list has been read back; and by this
            -- a worker knows the marks
            timeline = CASE WHEN r.finished_at IS NULL OR has_marks
                            THEN 'pg_upgrade of ' || old.cluster ELSE r.timeline END,
            state = CASE WHEN NOT old.was_foreign THEN r.state
                         WHEN r.total IS NULL THEN 'queued' ELSE 'running' END,
            error = CASE WHEN NOT old.was_foreign THEN r.error END,
            next_at = CASE WHEN NOT old.was_foreign THEN r.next_at END
        FROM old WHERE r.id = old.id
        RETURNING r.id, old.cluster, old.was_foreign)
    SELECT count(*), coalesce(array_agg(DISTINCT t.cluster), '{}'),
           coalesce(array_agg(t.id) FILTER (WHERE t.was_foreign), '{}')
    INTO runs, former, resumed FROM taken t;
    -- quiet hours may have been changed
    UPDATE sendcampaign.batch SET due = NULL WHERE ctid = ANY (ARRAY(
        SELECT b.ctid FROM sendcampaign.batch b
        WHERE b.run_id = ANY (resumed) AND b.due IS NOT NULL
        FOR NO KEY UPDATE SKIP LOCKED));
    PERFORM sendcampaign.take_over_rows('sendcampaign.opt_out_data', former, 'false');
    PERFORM sendcampaign.take_over_rows('sendcampaign.unreachable_data', former,
        'n.phone = o.phone AND n.role_oid = o.role_oid');
    PERFORM sendcampaign.take_over_rows('sendcampaign.reply_data', former,
        'n.sid_hash = o.sid_hash AND n.role_oid = o.role_oid');
    SELECT count(*) INTO locked FROM sendcampaign.run_data r
        WHERE trunc(r.system_identifier) <> here AND r.xmin = r.written_in
            AND r.database = database_here;
    IF locked > 0 THEN
        RAISE WARNING '% runs are locked, and have not been taken over', locked
            USING HINT = 'Call sendcampaign.after_pg_upgrade() once more when the transactions have'
                ' ended that have locked them.';
    END IF;
    PERFORM sendcampaign.wake();
    RETURN runs;
END
$$;
COMMENT ON FUNCTION sendcampaign.after_pg_upgrade() IS
'Continues the runs of a database after pg_upgrade, once the old cluster cannot send any more; returns how many runs, those that have ended included, it has taken over';
REVOKE ALL ON FUNCTION sendcampaign.after_pg_upgrade() FROM PUBLIC;

