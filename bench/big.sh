# Big lists: what another run feels while a million recipients are taken in; ten
# big runs at once; lists without an index, and rows of 20 kB; and the cost of a
# message and the worker's memory with ten million. At full size, this needs half
# an hour, 15 GB of disk, and 3 GB of memory for what the local Twilio keeps.

needed_kb=$(scaled 15000000)
[ "$(df -Pk "$work" | awk 'NR == 2 { print $4 }')" -gt "$needed_kb" ] || die "$work has not $needed_kb kB of disk left"

million=$(scaled 1000000)
tenth=$(scaled 100000)
wide=$(scaled 20000)
other_list=100000   # 20 s at 5,000 a second
rounds=3

# The rate of the other run in the two seconds before the commit of the call, and
# from there to the first request of the new run; and its longest pause.
remember_adopting() {
    load_ledger plain
    sql "INSERT INTO adopting
        WITH b AS (
            SELECT committed_at AS called, (SELECT min(bench.accepted_at(l)) FROM bench.ledger l
                WHERE bench.campaign_id(l) = campaign_id) AS begun
            FROM bench.run WHERE job_id = $1),
        o AS (
            SELECT at, at - lag(at) OVER (ORDER BY at) AS pause
            FROM (SELECT bench.accepted_at(l) AS at FROM bench.ledger l WHERE bench.campaign_id(l) = $2) l)
        SELECT bench.seconds(begun - called),
               (SELECT count(*) / 2.0 FROM o WHERE at BETWEEN called - interval '2 s' AND called),
               (SELECT count(*) FROM o WHERE at BETWEEN called AND begun) / bench.seconds(begun - called),
               (SELECT bench.seconds(max(pause)) FROM o WHERE at BETWEEN called AND begun + interval '1 s')
        FROM b"
}

# adopt_beside OTHER LIST: calls LIST while OTHER is sent
adopt_beside() {
    local other list
    send_to plain latency=20
    other=$(call other "$1")
    wait_for "$other" $((other_list / 5))
    list=$(call list "$2")
    wait_for "$other"
    ! is_under_way "$list" || sql "SELECT sendcampaign.cancel($list)" >/dev/null
    remember_adopting "$list" "$1"
}

# prepare LISTS RECIPIENTS [STATEMENT]: creates campaigns, whose ids it prints
prepare() {
    send_to plain
    empty_tables
    long_sql "SELECT bench.create_campaign($2) FROM generate_series(1, $1)"
    [ $# -lt 3 ] || long_sql "$3"
    long_sql 'VACUUM ANALYZE'
    long_sql 'CHECKPOINT'
}

# measure WHAT CAMPAIGN...: sends them at once
measure() {
    send_all "$@"
    sql "INSERT INTO variants (what, runs, recipients, seconds, cpu_s, rss_anon_kb, wal_bytes)
        SELECT what, count(*), sum(total), bench.seconds(max(finished_at) - min(started_at)),
            sum(cpu_s), max(rss_anon_kb), sum(wal_bytes)
        FROM bench.run WHERE what = '$1' GROUP BY what"
}

sql 'CREATE TABLE adopting (seconds double precision, before_per_s double precision,
    during_per_s double precision, pause_s double precision);
    CREATE TABLE variants (n serial, what text, runs bigint, recipients bigint, seconds double precision,
    cpu_s double precision, rss_anon_kb integer, wal_bytes numeric)'

campaigns=($(prepare 1 $other_list) $(create_campaign "$million"))
for ((round = 1; round <= rounds; round++)); do
    adopt_beside "${campaigns[@]}"
done

measure 'one list' $(prepare 1 "$million")
campaigns=($(prepare 10 "$tenth"))
measure 'ten lists at once' "${campaigns[@]}"
campaigns=($(prepare 10 "$tenth"))
measure 'one of ten lists' "${campaigns[4]}"
campaigns=($(prepare 10 "$tenth" 'DROP INDEX ac_list_users_ac_list_id_idx'))
measure 'one of ten lists, no index' "${campaigns[4]}"
sql 'CREATE INDEX ON ac_list_users (ac_list_id);
    ALTER TABLE ac_list_users ALTER data SET STORAGE EXTERNAL'
measure 'data of 20 kB' $(prepare 1 "$wide" \
    "UPDATE ac_list_users SET data = data || jsonb_build_object('note', repeat(md5(id::text), 625))")
sql 'ALTER TABLE ac_list_users ALTER data SET STORAGE EXTENDED'

show adopting "Another run's sending, 20 ms latency, while a list of $million is taken in; $rounds rounds" "
SELECT round(seconds::numeric, 2) AS call_to_first_request_s, round(before_per_s) AS before_per_s,
       round(during_per_s) AS during_per_s, round((during_per_s / before_per_s)::numeric, 3) AS ratio,
       round(pause_s::numeric, 2) AS longest_pause_s
FROM adopting ORDER BY 4"

show variants 'Big lists of different kinds, no latency' "
SELECT what, runs, recipients, round(recipients / seconds) AS messages_per_s,
       round((cpu_s * 1e6 / recipients)::numeric, 1) AS cpu_us_per_message,
       rss_anon_kb AS peak_rss_anon_kb, round(wal_bytes / recipients) AS wal_bytes_per_message
FROM variants ORDER BY n"

lists="1:50:0.001 $(scaled 10000):5:0.01 $(scaled 10000000):1:0.05" . "$root/bench/size.sh"
