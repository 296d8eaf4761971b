# Time from the commit of send_campaign() to the first request at the local
# Twilio, which has the same clock: cold, if a worker has to be started; warm, if
# one is sending another campaign; and if one is there that has nothing to do.

calls=$(scaled 200)     # enough for a 99th percentile

# Creates campaigns of ten recipients; prints their ids.
create_tens() {
    sql "SELECT bench.create_campaign(10) FROM generate_series(1, $1)"
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
    for campaign in $(create_tens $((calls / 4))); do
        send "cold, $1" "$campaign" 0.01
    done
    remember_first_requests "$1" "cold, $1"
}

# The other campaign has the same account, so one of its requests must end before
# the first of these can begin; a thousand of them end per second. It is long
# enough for calls that take 250 ms each, and cancelled in the end.
start_warm() {
    local campaigns other
    send_to "$1" 'latency=100&latency-spread=50'
    campaigns=$(create_tens "$calls")
    other=$(call other "$(create_campaign $((calls * 500 + 5000)))")
    wait_for "$other" 1000
    send_each "warm, $1" $campaigns
    is_under_way "$other" || die 'the other campaign has ended too soon'
    remember_first_requests "$1" "warm, $1"
    sql "SELECT sendcampaign.cancel($other)" >/dev/null
}

start_idle() {
    send_to "$1"
    linger 5s
    send_in_a_row "idle, $1" $(create_tens "$calls")
    linger 0
    # the first one of them started the worker
    sql "DELETE FROM bench.call WHERE job_id = (SELECT min(job_id) FROM bench.call WHERE what = 'idle, $1')"
    remember_first_requests "$1" "idle, $1"
}

sql 'CREATE TABLE starts (what text, ms double precision)'
for server in plain tls; do
    start_cold $server
    start_warm $server
    [ "$can_linger" = f ] || start_idle $server
done

show start 'From the commit to the first request' "
SELECT what, count(*) AS calls, round(min(ms)::numeric, 1) AS lowest_ms,
       round(median(ms)::numeric, 1) AS median_ms,
       round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 1) AS p99_ms,
       round(max(ms)::numeric, 1) AS highest_ms
FROM starts GROUP BY what ORDER BY what"
