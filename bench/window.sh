# How full the window of 100 requests is kept if the server is slow: messages per
# second, divided by the 100 / latency that the window allows. For the whole run,
# including its beginning and end; and for its middle, up to the message at 90 %,
# as the slope of a line through the times of arrival. The middle begins at 10 %,
# or if some answers are slow, at 50 %, as it takes a while until their share of
# the requests in flight is steady.

window=100      # the default of sendcampaign.max_concurrency

# measure_window NAME MESSAGES MEAN_MS FROM SETTINGS
measure_window() {
    send_to plain "$5"
    send "$1" "$(create_campaign "$2")"
    load_ledger plain
    sql "INSERT INTO windows SELECT '$1', $2, $window * 1000.0 / $3, messages_per_s, $4,
        (SELECT regr_slope(n, s)
         FROM (SELECT row_number() OVER (ORDER BY time_us) AS n,
                      (time_us - min(time_us) OVER ()) / 1e6 AS s FROM bench.ledger) l
         WHERE n BETWEEN $2 * $4 AND $2 * 0.9)
        FROM bench.run ORDER BY job_id DESC LIMIT 1"
}

sql 'CREATE TABLE windows (answers text, messages bigint, possible_per_s double precision,
    whole_per_s double precision, middle_from real, middle_per_s double precision)'
measure_window 'after 20 ms' "$(scaled 100000)" 20 0.1 latency=20
measure_window 'after 100 ms' "$(scaled 20000)" 100 0.1 latency=100
measure_window 'after 300 ms' "$(scaled 6000)" 300 0.1 latency=300
measure_window 'after 50 to 150 ms' "$(scaled 20000)" 100 0.1 'latency=100&latency-spread=50'
measure_window 'after 100 ms, 5 % after 5 s' "$(scaled 12000)" 345 0.5 'latency=100&slow=5:5000'

show window "The window of $window requests kept full" "
SELECT answers, messages, round(possible_per_s) AS possible_per_s,
       round(whole_per_s) AS whole_run_per_s,
       round((whole_per_s / possible_per_s)::numeric, 3) AS whole_run_share,
       middle_from, round(middle_per_s) AS middle_per_s,
       round((middle_per_s / possible_per_s)::numeric, 3) AS middle_share
FROM windows"
