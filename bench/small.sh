# Runs of one recipient, as triggers and applications make them: as many as eight
# sessions can queue, and a steady number a second, each beside two job queues
# that do the same with a job for each; then one at a time, with a certificate
# store of the usual size.
# All queue with pgbench, whose log tells when the first one was committed.

# a share for each of the eight sessions
runs=$(($(scaled 10000) / 8 * 8))
rounds=3
offered=300         # a second
paced=$(($(scaled 9000) / 8 * 8))
row=$(scaled 1000)
lone=$(scaled 100)

# queue_all USER RUNS FIRST STATEMENT [OPTION...]: for :campaign from FIRST on
queue_all() {
    printf '%s\n' '\set n :n + 1' "\\set campaign :first + :client_id * $(($2 / 8)) + :n - 1" "$4" >"$work/queue.sql"
    run_pgbench -U "$1" -c 8 -j 2 -t $(($2 / 8)) -D n=0 -D first="$3" -f "$work/queue.sql" "${@:5}"
}

# prepare RUNS: prints the first campaign
prepare() {
    local first
    send_to plain latency=20
    empty_tables
    first=$(sql "SELECT bench.create_small($1)")
    sql 'VACUUM ANALYZE'
    sql 'CHECKPOINT'
    echo "$first"
}

# by_extension WHAT RUNS ROUND [OPTION...]
by_extension() {
    local first
    first=$(prepare "$2")
    queue_all app "$2" "$first" 'SELECT send_campaign(:campaign);' "${@:4}"
    long_sql 'CALL bench.wait_for_runs()'
    check_counts "$2"
    sql "INSERT INTO small SELECT '$1', 'sendcampaign', $3, $2,
        bench.seconds(max(finished_at) - (SELECT min(bench.ended_at(p)) FROM bench.pgbench p)),
        median(ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
        FROM (SELECT finished_at, bench.seconds(finished_at - queued_at) * 1000 AS ms FROM sendcampaign.run_data) r"
}

# by_queue QUEUE WHAT RUNS ROUND [OPTION...]
by_queue() {
    local first
    first=$(prepare "$3")
    sql 'SET client_min_messages = warning; DROP SCHEMA IF EXISTS graphile_worker, pgboss CASCADE'
    begin env NODE_ENV=production API_URL="${api_url[plain]}" \
        "$node" "$peers/small.js" "$1" "$3" 100 "$work/queue.ready" >"$work/out"
    until [ -s "$work/queue.ready" ]; do
        kill -0 "${servers[-1]}" || die "$1 has not started"
        sleep 0.05
    done
    queue_all postgres "$3" "$first" "$(cat "$work/queue.ready")" "${@:5}"
    join
    rm "$work/queue.ready"
    check_counts "$3"
    sql "INSERT INTO small SELECT '$2', '$1', $4, $3,
        o.ended - (SELECT min(epoch + us / 1e6) FROM bench.pgbench), o.median_ms, o.p99_ms
        FROM (VALUES ($(tr ' ' , <"$work/out"))) o (ended, median_ms, p99_ms)"
}

# check_counts RUNS: checks that each was sent and counted once
check_counts() {
    load_ledger plain
    [ "$(sql 'SELECT count(*), count(DISTINCT phone) FROM bench.ledger')" = "$1 $1" ] ||
        die 'not all messages were sent once'
    [ "$(sql "SELECT sum((data->>'sentCount')::integer) FROM ac_list_users")" = "$1" ] ||
        die 'not all messages were counted once'
}

# connections_of SERVER: how many it has accepted
connections_of() { ask "$1" stats | grep -oE '"connections": ?[0-9]+' | grep -oE '[0-9]+$'; }

# one_at_a_time SERVER WHAT RUNS: the certificate of a server with TLS is one of many
one_at_a_time() {
    local first before name="$1, $2"
    send_to "$1" latency=20
    cat "$certificates" "$work/cert.pem" >"$work/store.pem"
    sql "ALTER DATABASE \"$PGDATABASE\" SET sendcampaign.ca_file = '$work/store.pem'"
    empty_tables
    first=$(sql "SELECT bench.create_small($3)")
    sql 'VACUUM ANALYZE'
    before=$(connections_of "$1")
    send_in_a_row "$name" $(seq "$first" $((first + $3 - 1)))
    sql "INSERT INTO lone SELECT '$1', '$2', count(*), sum(cpu_s), $(connections_of "$1") - $before,
        median(bench.seconds(finished_at - queued_at) * 1000) FROM bench.run WHERE what = '$name'"
}

[ -x "$node" ] || quietly 'Installing what npm has' install_peers
sql 'CREATE TABLE small (what text, way text, round int, runs bigint, seconds double precision,
    median_ms double precision, p99_ms double precision);
    CREATE TABLE lone (server text, worker text, runs bigint, cpu_s double precision, connections bigint,
    median_ms double precision)'

one_at_a_time plain 'started for it' "$lone"
one_at_a_time tls 'started for it' "$lone"
if [ "$can_linger" = t ]; then
    linger 5s
    one_at_a_time plain 'is there' "$row"
    one_at_a_time tls 'is there' "$row"
fi
for ((round = 1; round <= rounds; round++)); do
    by_extension queued "$runs" $round
    by_queue graphile-worker queued "$runs" $round
    by_queue pg-boss queued "$runs" $round
done
by_extension paced "$paced" 1 -R $offered
by_queue graphile-worker paced "$paced" 1 -R $offered
by_queue pg-boss paced "$paced" 1 -R $offered

show queued "$runs runs of one recipient, queued by 8 sessions, 20 ms latency, 100 in flight; medians of $rounds rounds" "
SELECT way, runs, round(median(runs / seconds)) AS runs_per_s, round(min(runs / seconds)) AS lowest,
       round(max(runs / seconds)) AS highest
FROM small WHERE what = 'queued' GROUP BY way, runs ORDER BY median(runs / seconds) DESC"

show paced "The same at $offered a second, from queued to finished" "
SELECT way, runs, round(runs / seconds) AS runs_per_s, round(median_ms) AS median_ms, round(p99_ms) AS p99_ms
FROM small WHERE what = 'paced' ORDER BY median_ms"

show lone 'Runs of one recipient, each after the one before, 20 ms latency; with TLS, the certificate is one of the usual store' "
SELECT server, worker, runs, round((cpu_s * 1000 / runs)::numeric, 2) AS cpu_ms_per_run, connections,
       round(median_ms::numeric, 1) AS median_ms
FROM lone ORDER BY worker DESC, server"
