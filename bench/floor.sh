# Messages per second if the server answers at once: bare libcurl, bare SQL, and
# the extension. The floor is the speed of the first two, one after the other.
# There are several rounds of all three, as the machine's speed may vary.

messages=$(scaled 40000)
rounds=5

# remember SERVER ROUND PART MESSAGES SECONDS CPU_SECONDS
remember() { sql "INSERT INTO floor VALUES ('$1', $2, '$3', $4, $5, $6)"; }

bare_http() {
    ask "$1" 'set?reset=1' >/dev/null
    run_job "$work/sendcampaign/bench/floor_http" \
        "${api_url[$1]}/2010-04-01/Accounts/$account/Messages.json" "$account:$token" \
        "$messages" 100 "$work/cert.pem" >"$work/out"
    remember "$1" "$2" http $(cat "$work/out")
}

bare_sql() {
    local list
    list=$(sql "SELECT ac_list_id FROM ac_campaigns WHERE id = $(create_campaign "$messages")")
    run_job psql -X -v list="$list" -f "$work/sendcampaign/bench/floor_sql.sql" >"$work/out"
    remember "$1" "$2" sql $(cat "$work/out")
}

extension() {
    send_to "$1"
    send "$1" "$(create_campaign "$messages")"
    remember "$1" "$2" extension \
        $(sql "SELECT total, run_s, cpu_s FROM bench.run ORDER BY job_id DESC LIMIT 1")
}

sql 'CREATE TABLE floor (server text, round int, part text, messages bigint,
    seconds double precision, cpu_s double precision)'
for server in tls plain; do
    for ((round = 1; round <= rounds; round++)); do
        bare_http $server $round
        bare_sql $server $round
        extension $server $round
    done
done

sql "CREATE VIEW rounds AS
SELECT server, messages,
       messages / http.seconds AS http_per_s, messages / sql.seconds AS sql_per_s,
       messages / (http.seconds + sql.seconds) AS floor_per_s,
       messages / extension.seconds AS extension_per_s,
       (http.seconds + sql.seconds) / extension.seconds AS ratio,
       http.cpu_s / messages * 1e6 AS http_cpu_us, sql.cpu_s / messages * 1e6 AS sql_cpu_us,
       extension.cpu_s / messages * 1e6 AS extension_cpu_us
FROM floor http JOIN floor sql USING (server, round, messages)
JOIN floor extension USING (server, round, messages)
WHERE http.part = 'http' AND sql.part = 'sql' AND extension.part = 'extension'"

show speed "Messages a second, no latency, $messages messages, 100 in flight; medians of $rounds rounds" "
SELECT server, round(median(http_per_s)) AS bare_http_per_s, round(median(sql_per_s)) AS bare_sql_per_s,
       round(median(floor_per_s)) AS floor_per_s, round(median(extension_per_s)) AS extension_per_s,
       round(median(ratio)::numeric, 3) AS ratio,
       round(min(ratio)::numeric, 3) AS lowest_ratio, round(max(ratio)::numeric, 3) AS highest_ratio
FROM rounds GROUP BY server ORDER BY server DESC"

show cpu 'The CPU time of that, in microseconds a message' "
SELECT server, round(median(http_cpu_us)::numeric, 1) AS bare_http_us,
       round(median(sql_cpu_us)::numeric, 1) AS bare_sql_us,
       round(median(extension_cpu_us)::numeric, 1) AS worker_us,
       round(median((http_cpu_us + sql_cpu_us) / nullif(extension_cpu_us, 0))::numeric, 3) AS ratio
FROM rounds GROUP BY server ORDER BY server DESC"

show wall 'The whole of a run, from the commit of send_campaign() to that of its end' "
SELECT what AS server, total AS messages,
       round(median(commit_to_completed_s)::numeric, 3) AS commit_to_completed_s,
       round(median(total / commit_to_completed_s)) AS messages_per_s
FROM bench.run GROUP BY what, total ORDER BY what DESC"
