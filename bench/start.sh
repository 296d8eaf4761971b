# Time from the commit of send_campaign() to the first request at the local
# Twilio, which has the same clock: cold, if a worker has to be started, and warm,
# if one is sending another campaign.

calls=20

# Creates campaigns of ten recipients; prints their ids.
create_small() {
    sql "SELECT bench.create_campaign(10) FROM generate_series(1, $calls)"
    sql 'VACUUM ANALYZE'
}

# remember_first_requests SERVER WHAT: for the calls with that name
remember_first_requests() {
    load_ledger "$1"
    sql "INSERT INTO starts
        SELECT what, bench.seconds(min(bench.accepted_at(l)) - committed_at) * 1000
        FROM bench.run JOIN bench.ledger l ON bench.campaign_id(l) = campaign_id
        WHERE what = '$2' GROUP BY what, job_id, committed_at"
}

start_cold() {
    local campaign
    send_to "$1"
    for campaign in $(create_small); do
        send "cold, $1" "$campaign" 0.01
    done
    remember_first_requests "$1" "cold, $1"
}

# The other campaign has the same account, so one of its requests must end before
# the first of these can begin; a thousand of them end per second.
start_warm() {
    local campaign campaigns other
    send_to "$1" 'latency=100&latency-spread=50'
    campaigns=$(create_small)
    other=$(call other "$(create_campaign 15000)")
    wait_for "$other" 1000
    for campaign in $campaigns; do
        wait_for "$(call "warm, $1" "$campaign")"
    done
    is_under_way "$other" || die 'the other campaign has ended too soon'
    remember_first_requests "$1" "warm, $1"
    wait_for "$other"
}

sql 'CREATE TABLE starts (what text, ms double precision)'
for server in plain tls; do
    start_cold $server
    start_warm $server
done

show start 'From the commit to the first request' "
SELECT what, count(*) AS calls, round(min(ms)::numeric, 1) AS lowest_ms,
       round(median(ms)::numeric, 1) AS median_ms, round(max(ms)::numeric, 1) AS highest_ms
FROM starts GROUP BY what ORDER BY what"
