# What others feel of a campaign of 1,000 messages a second: pgbench's TPC-B at a
# fixed rate, in the campaign's database and in another one at the same time, with
# the campaign, without it, and while bare libcurl makes the same requests: the
# local Twilio, and the requests themselves, need CPU of the same machine. These
# alternate, and the order changes each time, as the machine's speed may vary.
# Autovacuum is on, and looks every five seconds.

rounds=3
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

# remember_latencies PLACE ROUND BESIDE DATABASE: from the log of that pgbench
remember_latencies() {
    load_pgbench "$work/$4"
    sql "INSERT INTO latencies
        SELECT '$1', $2, '$3', count(*), avg(latency_us) / 1000,
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

# begin_requests: as many as a campaign makes while pgbench runs, until join()
begin_requests() {
    begin "$work/sendcampaign/bench/floor_http" \
        "${api_url[plain]}/2010-04-01/Accounts/$account/Messages.json" "$account:$token" \
        $(((time_s + warm_up_s) * 1000)) 100 "$work/cert.pem" >"$work/out"
    until [ "$(ask plain ledger | wc -l)" -ge $((warm_up_s * 1000)) ]; do sleep 0.1; done
}

# begin_campaign ROUND: sets its job, and how many messages it has sent
begin_campaign() {
    sending=$(call "$1" "$(create_campaign $(((time_s + warm_up_s + 10) * 1000)))")
    wait_for "$sending" $((warm_up_s * 1000))
    messages="(SELECT sent FROM sendcampaign.run_data)"
}

end_campaign() {
    is_under_way "$sending" || die 'the campaign has ended too soon'
    sql "SELECT sendcampaign.cancel($sending)" >/dev/null
}

# measure nothing|requests|campaign ROUND
measure() {
    local lsn sending messages=0
    send_to plain latency=100
    empty_tables
    sql 'VACUUM ANALYZE'
    sql 'CHECKPOINT'
    [ "$1" = nothing ] || "begin_$1" "$2"
    lsn=$(sql "INSERT INTO loads
        SELECT $2, '$1', pg_current_wal_insert_lsn(), NULL, $messages, NULL,
            ARRAY[$(autovacuum_of "$PGDATABASE")] RETURNING lsn")
    begin_pgbench "$PGDATABASE"
    begin_pgbench "$elsewhere"
    join
    join
    sql "UPDATE loads SET wal_bytes = pg_current_wal_insert_lsn() - '$lsn', messages = $messages - messages,
            dead_rows = $dead_rows,
            autovacuum = ARRAY(SELECT a - b FROM unnest(ARRAY[$(autovacuum_of "$PGDATABASE")], autovacuum) u (a, b))
        WHERE round = $2 AND beside = '$1'"
    remember_latencies 'the same database' "$2" "$1" "$PGDATABASE"
    remember_latencies 'another database' "$2" "$1" "$elsewhere"
    case $1 in
        requests) join ;;
        campaign) end_campaign ;;
    esac
}

sql "ALTER SYSTEM SET autovacuum = on"
sql "ALTER SYSTEM SET autovacuum_naptime = '5s'"
sql "ALTER SYSTEM SET log_autovacuum_min_duration = 0"
sql 'SELECT pg_reload_conf()' >/dev/null
createdb "$elsewhere"
initialize "$PGDATABASE"
initialize "$elsewhere"
sql 'CREATE TABLE latencies (place text, round int, beside text, transactions bigint,
    average_ms double precision, p95_ms double precision, p99_ms double precision);
    CREATE TABLE loads (round int, beside text, lsn pg_lsn, wal_bytes numeric, messages bigint,
    dead_rows bigint, autovacuum numeric[])'
orders=('nothing requests campaign' 'campaign nothing requests' 'requests campaign nothing')
for ((round = 1; round <= rounds; round++)); do
    for beside in ${orders[(round - 1) % 3]}; do measure "$beside" $round; done
done
sql 'ALTER SYSTEM RESET ALL'
sql 'SELECT pg_reload_conf()' >/dev/null

show latency "pgbench at $rate transactions a second, beside nothing, 1,000 bare requests a second, and a campaign of 1,000 messages a second; medians of $rounds rounds" "
SELECT place, beside, round(median(average_ms)::numeric, 2) AS average_ms,
       round(median(p95_ms)::numeric, 2) AS p95_ms, round(median(p99_ms)::numeric, 2) AS p99_ms,
       round(median(p99_ms / nothing_ms)::numeric, 2) AS to_nothing,
       round(median(p99_ms / requests_ms)::numeric, 2) AS to_requests,
       round(min(p99_ms / requests_ms)::numeric, 2) AS lowest, round(max(p99_ms / requests_ms)::numeric, 2) AS highest
FROM (SELECT *, max(p99_ms) FILTER (WHERE beside = 'nothing') OVER w AS nothing_ms,
             max(p99_ms) FILTER (WHERE beside = 'requests') OVER w AS requests_ms
      FROM latencies WINDOW w AS (PARTITION BY place, round)) l
GROUP BY place, beside ORDER BY place, median(p99_ms)"

show load "The load of that, by both pgbenches and what is beside them; autovacuum's and dead rows, of the campaign's database" "
SELECT beside, round(median(messages / $time_s)) AS messages_per_s,
       round(median(wal_bytes::double precision / $time_s / 1024)) AS wal_kb_per_s,
       round(median(autovacuum[1]::double precision)::numeric, 1) AS vacuums,
       round(median(autovacuum[2]::double precision)::numeric, 2) AS vacuums_cpu_s,
       round(median(autovacuum[3]::double precision / 1024)) AS vacuums_wal_kb,
       round(median(dead_rows::double precision)) AS dead_rows_left
FROM loads GROUP BY beside ORDER BY median(messages), beside"
