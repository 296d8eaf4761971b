# What others feel of a campaign of 1,000 messages a second: pgbench's TPC-B at a
# fixed rate, in the campaign's database and in another one at the same time, with
# the campaign and without it. These alternate, and the order changes each time,
# as the machine's speed may vary. Autovacuum is on, and looks every five seconds.

rounds=4
rate=100            # transactions a second in each database
time_s=$(scaled 30)
warm_up_s=2
elsewhere=${PGDATABASE}_elsewhere

# initialize DATABASE: for pgbench
initialize() { run_job pgbench -i -q -s 10 -d "$1" >"$work/pgbench.out" 2>&1 || die "$(cat "$work/pgbench.out")"; }

# begin_pgbench DATABASE: until join()
begin_pgbench() {
    begin pgbench -n -c 4 -R $rate -T "$time_s" -l --log-prefix="$work/$1" "$1" >"$work/$1.out" 2>&1
}

# remember_latencies PLACE ROUND CAMPAIGN DATABASE: from the log of that pgbench
remember_latencies() {
    load_pgbench "$work/$4"
    sql "INSERT INTO latencies
        SELECT '$1', $2, $3, count(*), avg(latency_us) / 1000,
            percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_us) / 1000,
            percentile_cont(0.99) WITHIN GROUP (ORDER BY latency_us) / 1000
        FROM bench.pgbench"
}

# autovacuum_of DATABASE: prints how often it has vacuumed, its CPU time, what it
# has written, according to the server's log
autovacuum_of() {
    perl -ne 'BEGIN { $database = shift; @sum = (0, 0, 0) }
        if (/automatic vacuum of table "([^".]+)\./) { $ours = $1 eq $database; $sum[0]++ if $ours }
        $sum[2] += $1 if $ours && /WAL usage: .* (\d+) bytes/;
        if ($ours && /system usage: CPU: user: ([\d.]+) s, system: ([\d.]+) s/) { $sum[1] += $1 + $2; $ours = 0 }
        END { print join(", ", @sum) }' "$1" "$work/log"
}

# What pgbench has no part in.
dead_rows="(SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname NOT LIKE 'pgbench%')"

# measure with|without ROUND
measure() {
    local sending='' campaign=false lsn messages=0
    send_to plain latency=100
    empty_tables
    sql 'VACUUM ANALYZE'
    if [ "$1" = with ]; then
        campaign=true
        sending=$(call "$2" "$(create_campaign $(((time_s + warm_up_s + 10) * 1000)))")
        wait_for "$sending" $((warm_up_s * 1000))
        messages="(SELECT sent FROM sendcampaign.run_data)"
    else
        sql 'CHECKPOINT'
    fi
    lsn=$(sql "INSERT INTO loads
        SELECT $2, $campaign, pg_current_wal_insert_lsn(), NULL, $messages, NULL,
            ARRAY[$(autovacuum_of "$PGDATABASE")] RETURNING lsn")
    begin_pgbench "$PGDATABASE"
    begin_pgbench "$elsewhere"
    join
    join
    [ "$1" = without ] || is_under_way "$sending" || die 'the campaign has ended too soon'
    sql "UPDATE loads SET wal_bytes = pg_current_wal_insert_lsn() - '$lsn', messages = $messages - messages,
            dead_rows = $dead_rows,
            autovacuum = ARRAY(SELECT a - b FROM unnest(ARRAY[$(autovacuum_of "$PGDATABASE")], autovacuum) u (a, b))
        WHERE round = $2 AND campaign = $campaign"
    remember_latencies 'the same database' "$2" $campaign "$PGDATABASE"
    remember_latencies 'another database' "$2" $campaign "$elsewhere"
    [ "$1" = without ] || sql "SELECT sendcampaign.cancel($sending)" >/dev/null
}

sql "ALTER SYSTEM SET autovacuum = on"
sql "ALTER SYSTEM SET autovacuum_naptime = '5s'"
sql "ALTER SYSTEM SET log_autovacuum_min_duration = 0"
sql 'SELECT pg_reload_conf()' >/dev/null
createdb "$elsewhere"
initialize "$PGDATABASE"
initialize "$elsewhere"
sql 'CREATE TABLE latencies (place text, round int, campaign boolean, transactions bigint,
    average_ms double precision, p95_ms double precision, p99_ms double precision);
    CREATE TABLE loads (round int, campaign boolean, lsn pg_lsn, wal_bytes numeric, messages bigint,
    dead_rows bigint, autovacuum numeric[])'
alternate $rounds
sql 'ALTER SYSTEM RESET ALL'
sql 'SELECT pg_reload_conf()' >/dev/null

show latency "pgbench at $rate transactions a second, without a campaign and with one of 1,000 messages a second; medians of $rounds rounds" "
SELECT place, round(median(o.average_ms)::numeric, 2) AS without_average_ms,
       round(median(w.average_ms)::numeric, 2) AS with_average_ms,
       round(median(o.p95_ms)::numeric, 2) AS without_p95_ms, round(median(w.p95_ms)::numeric, 2) AS with_p95_ms,
       round(median(o.p99_ms)::numeric, 2) AS without_p99_ms, round(median(w.p99_ms)::numeric, 2) AS with_p99_ms,
       round(median(w.p99_ms / o.p99_ms)::numeric, 3) AS p99_ratio,
       round(min(w.p99_ms / o.p99_ms)::numeric, 3) AS lowest_ratio,
       round(max(w.p99_ms / o.p99_ms)::numeric, 3) AS highest_ratio
FROM latencies o JOIN latencies w USING (place, round)
WHERE w.campaign AND NOT o.campaign GROUP BY place ORDER BY place"

show load "The load of that, by both pgbenches and the campaign; autovacuum's and dead rows, of the campaign's database" "
SELECT campaign, round(median(messages / $time_s)) AS messages_per_s,
       round(median(wal_bytes::double precision / $time_s / 1024)) AS wal_kb_per_s,
       round(median(autovacuum[1]::double precision)::numeric, 1) AS vacuums,
       round(median(autovacuum[2]::double precision)::numeric, 2) AS vacuums_cpu_s,
       round(median(autovacuum[3]::double precision / 1024)) AS vacuums_wal_kb,
       round(median(dead_rows::double precision)) AS dead_rows_left
FROM loads GROUP BY campaign ORDER BY campaign"
