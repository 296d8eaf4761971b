# The cost of a message in lists of different lengths, and what is left in the
# tables. A list of one shows the cost of starting and ending a worker.
# Small lists are sent several times, as they end too soon to be measured.

calls=20

# RECIPIENTS:TIMES:LOOK_S, unless big.sh wants others
lists=${lists:-1:50:0.001 $(scaled 1000):50:0.005 $(scaled 10000):5:0.01
    $(scaled 100000):1:0.05 $(scaled 1000000):1:0.05}

# Records what the first run has left behind.
remember_tables() {
    sql "INSERT INTO left_behind
        SELECT $1, relname, n_dead_tup, pg_table_size(relid), pg_indexes_size(relid)
        FROM pg_stat_user_tables
        WHERE relid IN ('ac_list_users'::regclass, 'sendcampaign.message_data'::regclass,
            'sendcampaign.claim'::regclass, 'sendcampaign.batch'::regclass)"
}

# measure_size RECIPIENTS TIMES LOOK_S
measure_size() {
    local campaign i
    send_to plain
    empty_tables
    campaign=$(create_campaign "$1")
    long_sql "CALL bench.time_calls($campaign, $calls)"
    for ((i = 1; i <= $2; i++)); do
        send send "$campaign" "$3"
        [ $i -gt 1 ] || remember_tables "$1"
    done
    sql "INSERT INTO sizes SELECT * FROM bench.run"
}

sql 'CREATE TABLE sizes AS SELECT * FROM bench.run WITH NO DATA;
    CREATE TABLE left_behind (recipients bigint, "table" text, dead_tuples bigint,
        table_bytes bigint, index_bytes bigint)'
for list in $lists; do
    measure_size ${list//:/ }
done

show cost 'Lists of different lengths, no latency' "
SELECT total AS recipients, count(*) AS runs, round(median(messages_per_s)) AS messages_per_s,
       round((sum(cpu_s) * 1e6 / sum(total))::numeric, 1) AS cpu_us_per_message,
       CASE WHEN total > 1 THEN round((sum(cpu_s - start_cpu_s) * 1e6 / sum(total))::numeric, 1) END
           AS less_start_us_per_message,
       max(rss_anon_kb) AS peak_rss_anon_kb,
       round(sum(wal_bytes) / sum(total)) AS wal_bytes_per_message
FROM sizes, (SELECT avg(cpu_s) AS start_cpu_s FROM sizes WHERE total = 1) s
GROUP BY total ORDER BY total"

show call 'send_campaign() itself' "
SELECT total AS recipients,
       round(max(ms) FILTER (WHERE n = 1)::numeric, 2) AS first_in_session_ms,
       round(median(ms) FILTER (WHERE n > 1)::numeric, 2) AS later_ms
FROM (SELECT DISTINCT campaign_id, total FROM sizes) s JOIN bench.call_time USING (campaign_id)
GROUP BY total ORDER BY total"

show left_behind 'What one run leaves in the tables, before any vacuum' "
SELECT recipients, \"table\", dead_tuples, table_bytes, index_bytes
FROM left_behind WHERE recipients > 1 ORDER BY 1, 2"
