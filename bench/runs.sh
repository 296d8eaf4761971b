# Several runs at once, of one role and therefore one worker: the same number of
# messages in one, two and four runs, and many small runs beside a large one.

# create_campaigns COUNT RECIPIENTS: prints their ids
create_campaigns() {
    sql "SELECT bench.create_campaign($2) FROM generate_series(1, $1)"
    sql 'VACUUM ANALYZE'
    sql 'CHECKPOINT'
}

# at_once RUNS MESSAGES
at_once() {
    send_to plain
    call "$1" $(create_campaigns "$1" $(($2 / $1))) >/dev/null
    wait_for_all "$1"
}

# beside SMALL LARGE: SMALL runs of ten messages, called in one go while a run of LARGE is sent
beside() {
    local small large
    send_to plain latency=20
    small=$(create_campaigns "$1" 10)
    large=$(call large "$(create_campaigns 1 "$2")")
    wait_for "$large" 1
    call small $small >/dev/null
    wait_for_all small
    is_under_way "$large" || die 'the large run has ended too soon'
    wait_for "$large"
}

for runs in 1 2 4; do
    at_once $runs "$(scaled 40000)"
done
beside "$(scaled 200)" "$(scaled 100000)"

show at_once 'Runs at once, no latency' "
SELECT what AS runs, sum(total) AS messages,
       round(sum(total) / bench.seconds(max(finished_at) - min(started_at))) AS messages_per_s
FROM bench.run WHERE what IN ('1', '2', '4') GROUP BY what ORDER BY what"

show beside 'Small runs of ten messages beside a large one, 20 ms latency, from queued to finished' "
SELECT count(*) AS small_runs, (SELECT total FROM bench.run WHERE what = 'large') AS messages_of_large,
       round(median(ms)) AS median_ms,
       round(percentile_cont(0.95) WITHIN GROUP (ORDER BY ms)) AS p95_ms, round(max(ms)) AS highest_ms
FROM (SELECT bench.seconds(finished_at - queued_at) * 1000 AS ms
      FROM bench.run WHERE what = 'small') s"
