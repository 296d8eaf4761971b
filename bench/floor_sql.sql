/*
 * floor_sql.sql
 *		How fast can PostgreSQL record the outcomes of a list's messages if it
 *		does nothing else?  The INSERT is that of src/worker/record.c, the UPDATE
 *		and the settings for its plan are those of src/database/app_tables.c.
 *		There is one commit per thousand messages, as in the worker, which also
 *		claims messages in it.
 *
 *		psql -v list=1 -f floor_sql.sql
 *
 * Prints the number of messages, the seconds that the statements and commits
 * took, and the seconds of CPU time.  The arrays are built in advance.
 */
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;

CREATE TABLE IF NOT EXISTS public.floor_message (LIKE sendcampaign.message_data INCLUDING ALL);

CREATE TEMP TABLE outcomes (
    n integer PRIMARY KEY,
    ids bigint[], phones text[], statuses text[], sids text[], codes integer[],
    errors text[], segments integer[], attempts integer[]
);
ALTER TABLE outcomes ALTER ids SET STORAGE EXTERNAL, ALTER phones SET STORAGE EXTERNAL,
    ALTER statuses SET STORAGE EXTERNAL, ALTER sids SET STORAGE EXTERNAL;
INSERT INTO outcomes
SELECT row_number() OVER (), array_agg(id), array_agg(phone), array_agg('sent'::text),
    array_agg('SM' || md5(id::text)), array_agg(NULL::integer), array_agg(NULL::text),
    array_agg(1), array_agg(1)
FROM (SELECT id, data->>'sms' AS phone, (row_number() OVER (ORDER BY id) - 1) / 1000 AS n
      FROM ac_list_users WHERE ac_list_id = :list) u
GROUP BY u.n;

CREATE FUNCTION pg_temp.cpu_s()
RETURNS double precision
LANGUAGE sql
AS $$ SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::double precision / 1e9 $$;

CREATE PROCEDURE pg_temp.record(run bigint, INOUT messages bigint, INOUT seconds double precision,
    INOUT cpu_seconds double precision)
LANGUAGE plpgsql
AS $$
DECLARE
    _ids bigint[]; _phones text[]; _statuses text[]; _sids text[]; _codes integer[];
    _errors text[]; _segments integer[]; _attempts integer[];
    cpu_before double precision := pg_temp.cpu_s();
    before timestamptz;
    updated bigint;
    inserted bigint;
BEGIN
    FOR i IN 1 .. (SELECT count(*) FROM outcomes) LOOP
        SELECT ids, phones, statuses, sids, codes, errors, o.segments, o.attempts
        INTO _ids, _phones, _statuses, _sids, _codes, _errors, _segments, _attempts
        FROM outcomes o WHERE n = i;

        before := clock_timestamp();
        UPDATE public.ac_list_users
        SET data = CASE pg_catalog.jsonb_typeof(coalesce(data::jsonb, '{}'))
                WHEN 'object' THEN coalesce(data::jsonb, '{}') || pg_catalog.jsonb_build_object('sentCount',
                    CASE WHEN pg_catalog.jsonb_typeof(data::jsonb->'sentCount') = 'number'
                           OR data->>'sentCount' ~ '^-?[0-9]{1,99}$'
                    THEN (data->>'sentCount')::pg_catalog.numeric ELSE 0 END + 1)
                WHEN 'null' THEN pg_catalog.jsonb_build_object('sentCount', 1)
                ELSE data::jsonb END,
            updated_at = pg_catalog.now()
        WHERE id = ANY (_ids);
        GET DIAGNOSTICS updated = ROW_COUNT;
        INSERT INTO public.floor_message (run_id, list_user_id, phone, status, sid,
            error_code, error_message, segments, attempts, account, counted)
        SELECT run, u.*, true OR u.status <> 'sent'
        FROM unnest(_ids, _phones, _statuses, _sids, _codes, _errors, _segments, _attempts,
                    array_fill(NULL::text, ARRAY[cardinality(_ids)]))
            u(id, phone, status, sid, code, message, segments, attempts, account);
        GET DIAGNOSTICS inserted = ROW_COUNT;
        COMMIT;
        seconds := seconds + extract(epoch FROM clock_timestamp() - before);
        messages := messages + least(updated, inserted);
    END LOOP;
    cpu_seconds := pg_temp.cpu_s() - cpu_before;
END
$$;

\pset format unaligned
\pset fieldsep ' '
\pset tuples_only on
CALL pg_temp.record(:list, 0, 0, 0);
