# Tenants on one, two and three nodes of Citus, each of which sends its own tenant's
# campaign at the same time, beside one campaign of the plain cluster: messages per
# second, and CPU time of a message, of all processes that have ended on the nodes that
# send. Needs CITUS= (see script/test).

citus_nodes=3
latency=100
messages=$(scaled 10000)

# on NODE STATEMENT: as its superuser
on() {
    PGDATABASE=postgres PGPORT=$((citus_port + $1)) PGOPTIONS='-c client_min_messages=warning' \
        psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 -c "$2"
}

# Sockets are in a directory that only we use, but nodes reach each other by TCP.
find_ports() {
    citus_port=$(perl -MIO::Socket::INET -e '
        while (1) {
            my $port = 10240 + int rand 20000;
            my @all = grep { $_ } map { IO::Socket::INET->new(LocalAddr => "127.0.0.1:" . ($port + $_), Listen => 1) } 0 .. shift() - 1;
            if (@all == '"$citus_nodes"') { print $port; exit }
        }' "$citus_nodes")
}

start_node() {
    local data=$work/node$1
    as_user initdb -D "$data" -U postgres -A trust --no-sync
    {
        echo "port = $((citus_port + $1))"
        echo "listen_addresses = '127.0.0.1'"
        echo "unix_socket_directories = '$work'"
        echo "shared_preload_libraries = 'citus'"
        echo 'wal_level = logical'
        echo 'autovacuum = off'
        echo "citus.node_conninfo = 'sslmode=disable'"
        echo 'citus.enable_statistics_collection = off'
        echo "bench.ticks_per_s = '$(getconf CLK_TCK)'"
        echo "sendcampaign.api_url = '${api_url[plain]}'"
        echo 'sendcampaign.worker_idle_timeout = 0'
    } | as_user tee -a "$data/postgresql.conf" >/dev/null
    as_user pg_ctl -D "$data" -l "$data.log" -w start || die "$(cat "$data.log")"
    on "$1" 'CREATE EXTENSION citus'
}

join_nodes() {
    local node
    on 0 "SELECT citus_set_coordinator_host('127.0.0.1', $citus_port)"
    on 0 "SELECT citus_set_node_property('127.0.0.1', $citus_port, 'shouldhaveshards', true)"
    for ((node = 1; node < citus_nodes; node++)); do
        on 0 "SELECT citus_add_node('127.0.0.1', $((citus_port + node)))"
    done
    on 0 'CREATE EXTENSION sendcampaign'
    on 0 'CREATE ROLE app LOGIN'
    for ((node = 0; node < citus_nodes; node++)); do
        PGDATABASE=postgres PGPORT=$((citus_port + node)) psql -X -q -v ON_ERROR_STOP=1 \
            -f "$root/bench/citus.sql" -f "$root/bench/process.sql"
    done
}

start_nodes() {
    local node
    find_ports
    for ((node = 0; node < citus_nodes; node++)); do start_node "$node"; done
    join_nodes
}

stop_nodes() {
    local node
    for ((node = citus_nodes - 1; node >= 0; node--)); do
        as_user pg_ctl -D "$work/node$node" -w -m fast stop
    done
}

# create_tenant SCHEMA NODE
create_tenant() {
    on 0 "CALL bench.create_tenant('$1', $messages, '$account', '$token')"
    on 0 "SELECT citus_schema_distribute('$1')"
    [ "$2" = "$(on 0 "SELECT groupid FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)
        WHERE logicalrelid = '$1.ac_list_users'::regclass")" ] ||
        on 0 "SELECT citus_schema_move('$1', '127.0.0.1', $((citus_port + $2)), 'block_writes')"
    on "$2" 'VACUUM ANALYZE'
    on "$2" 'CHECKPOINT'
}

# measure_nodes COUNT: a tenant on each of so many nodes, all at once
measure_nodes() {
    local node
    for ((node = 0; node < $1; node++)); do create_tenant "nodes$1_$node" "$node"; done
    ask plain "set?reset=1&latency=$latency" >/dev/null
    for ((node = 0; node < $1; node++)); do
        begin env PGDATABASE=postgres PGPORT=$((citus_port + node)) psql -X -q -A -t -v ON_ERROR_STOP=1 \
            -c "CALL bench.measure('nodes$1_$node')"
    done
    for ((node = 0; node < $1; node++)); do join; done
    for ((node = 0; node < $1; node++)); do
        on "$node" "SELECT $1, * FROM bench.measured WHERE schema = 'nodes$1_$node'" |
            tr ' ' '\t' | sql 'COPY nodes FROM STDIN'
    done
}

measure_plain() {
    send_to plain latency=$latency
    send plain "$(create_campaign "$messages")"
    sql "INSERT INTO nodes SELECT 0, 'plain', total, extract(epoch FROM started_at),
            extract(epoch FROM finished_at), cpu_s
        FROM bench.run ORDER BY job_id DESC LIMIT 1"
}

[ -n "${CITUS:-}" ] || die 'CITUS= must name an archive of the source of Citus, or the directory of a server that has it'
sql 'CREATE TABLE nodes (nodes integer, schema text, messages bigint, started_s numeric,
    finished_s numeric, cpu_s double precision)'
quietly "Starting $citus_nodes nodes with Citus" start_nodes
measure_plain
for ((count = 1; count <= citus_nodes; count++)); do measure_nodes "$count"; done
measure_plain
stop_nodes

show nodes "Tenants on nodes of Citus, each $messages messages, answers after $latency ms (0 nodes: plain PostgreSQL)" "
SELECT nodes, count(*) AS runs, sum(messages) AS messages,
       round(CASE nodes WHEN 0 THEN avg(messages / (finished_s - started_s))
             ELSE sum(messages) / (max(finished_s) - min(started_s)) END) AS messages_per_s,
       round((sum(cpu_s) / sum(messages) * 1e6)::numeric, 1) AS cpu_us_per_message
FROM nodes GROUP BY nodes ORDER BY nodes"
