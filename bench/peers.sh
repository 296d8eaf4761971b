# Other ways to send the same messages from the same tables through the same
# local Twilio: the programs in bench/peers, with packages from npm. Each program
# measures itself, starting when it reads the list; jobs are queued before.

# by_node WAY MESSAGES LATENCY_MS PROGRAM CONCURRENCY
by_node() {
    local campaign
    send_to plain "latency=$3"
    campaign=$(create_campaign "$2")
    run_job env NODE_ENV=production API_URL="${api_url[plain]}" ACCOUNT=$account TOKEN=$token \
        SENDER=+15005550006 "$node" "$peers/$4" "$campaign" "$5" >"$work/out"
    check_counts "$campaign" "$2"
    remember "$1" "$3" $(cat "$work/out")
}

by_extension() {
    local campaign
    send_to plain "latency=$2"
    campaign=$(create_campaign "$1")
    send "$2" "$campaign"
    check_counts "$campaign" "$1"
    remember sendcampaign "$2" $(sql "SELECT total, run_s FROM bench.run ORDER BY job_id DESC LIMIT 1")
}

# check_counts CAMPAIGN MESSAGES: checks that each was sent and counted once
check_counts() {
    load_ledger plain
    [ "$(sql 'SELECT count(DISTINCT phone) FROM bench.ledger')" = "$2" ] || die 'not all messages were sent'
    [ "$(sql "SELECT sum((data->>'sentCount')::integer) FROM ac_list_users
        WHERE ac_list_id = (SELECT ac_list_id FROM ac_campaigns WHERE id = $1)")" = "$2" ] ||
        die 'not all messages were counted'
}

# remember WAY LATENCY_MS MESSAGES SECONDS
remember() { sql "INSERT INTO peers VALUES ('$1', $2, $3, $4)"; }

[ -x "$node" ] || quietly 'Installing what npm has' install_peers
sql 'CREATE TABLE peers (way text, latency_ms integer, messages bigint, seconds double precision)'
for latency in 0 100; do
    # with this latency, ten per second if sent one after the other
    in_series=$((latency > 0 ? 100 : 2000))
    by_node 'twilio, async.eachSeries, Sequelize' "$(scaled $in_series)" $latency application.js 1
    by_node 'twilio, async.eachLimit 50, Sequelize' "$(scaled 4000)" $latency application.js 50
    by_node 'twilio, Graphile Worker, concurrency 100' "$(scaled 8000)" $latency jobs.js 100
    by_extension "$(scaled 8000)" $latency
done

show peers 'The same messages sent in other ways' "
SELECT latency_ms, way, messages, round(messages / seconds) AS messages_per_s
FROM peers ORDER BY latency_ms, messages / seconds"
