/*
 * process.sql
 *		What is known of a server's processes: for schema.sql and citus.sql,
 *		which have the schema "bench".
 */
/*
 * CPU time of all processes of this server that have ended, according to the
 * postmaster: a worker that ends cannot be asked for its total.
 */
CREATE FUNCTION bench.cpu_of_ended_s()
RETURNS double precision
LANGUAGE sql
AS $$
    SELECT (stat[16]::bigint + stat[17]::bigint) / current_setting('bench.ticks_per_s')::double precision
    FROM (SELECT string_to_array(pg_read_file(format('/proc/%s/stat',
              split_part(pg_read_file('postmaster.pid'), E'\n', 1))), ' ')) s(stat)
$$;

/* A process that has ended exists until the postmaster has noticed that. */
CREATE FUNCTION bench.is_process(pid integer)
RETURNS boolean
LANGUAGE sql
AS $$ SELECT pid IS NOT NULL AND (pg_stat_file('/proc/' || pid, true)).size IS NOT NULL $$;
