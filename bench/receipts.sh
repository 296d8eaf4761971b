# What receipts cost: a sweep over a list of messages from four senders, against a
# server without latency and one that takes 300 ms for a page, in parts by sender
# and in one; sweeps that learn nothing new; how late a receipt is; what a web
# server's call costs; what reconcile() costs; and how fast messages are sent
# while the list is read all the time.

messages=$(scaled 1000000)
rounds=3

lists_of() { ask plain stats | grep -oE '"lists": ?[0-9]+' | grep -oE '[0-9]+$'; }

# wait_while CONDITION: in one session, as the CPU time of each counts
wait_while() {
    long_sql "DO 'BEGIN
        WHILE ($1) LOOP
            COMMIT;
            PERFORM pg_sleep(0.02);
        END LOOP;
    END'"
}

wait_for_end() { wait_while 'SELECT bench.worker_pid() IS NOT NULL'; }

size="pg_total_relation_size('sendcampaign.receipt_data')"

# sweep WHAT: sweeps all runs, and waits until the worker has ended
sweep() {
    wait_for_end
    sql 'CHECKPOINT'
    sql "INSERT INTO sweeps (what, lists_before, cpu_before, lsn_before, size_before, began_at)
        SELECT '$1', $(lists_of), bench.cpu_of_ended_s(), pg_current_wal_insert_lsn(), $size, clock_timestamp()"
    sql 'UPDATE sendcampaign.run_data SET sweep_at = now(); SELECT sendcampaign.wake()' >/dev/null
    wait_while 'SELECT bool_or(sweep_at <= now()) FROM sendcampaign.run_data'
    sql "UPDATE sweeps SET ended_at = clock_timestamp(), lsn = pg_current_wal_insert_lsn(), size = $size,
        lists = $(lists_of), delivered = (SELECT sum(r.delivered) FROM sendcampaign.run_data r) WHERE what = '$1'"
    wait_for_end
    sql "UPDATE sweeps SET cpu = bench.cpu_of_ended_s() WHERE what = '$1'"
}

sql 'CREATE TABLE sweeps (n serial, what text, lists_before bigint, lists bigint, cpu_before double precision,
    cpu double precision, lsn_before pg_lsn, lsn pg_lsn, size_before bigint, size bigint,
    began_at timestamptz, ended_at timestamptz, delivered bigint)'
# set_senders NUMBER...: for what is sent and swept from now on
set_senders() {
    local array
    array=$(printf '"%s",' "$@")
    sql "UPDATE groups SET configuration = configuration || '{\"twilioFromSmsNumber\": [${array%,}]}';
        UPDATE sendcampaign.run_data SET senders = NULL"
}

send_to plain 'sent-after=0&deliver-after=-1'
campaign=$(create_campaign "$messages")
set_senders +15005551011 +15005551012 +15005551013 +15005551014
sql 'ALTER ROLE app SET sendcampaign.receipts = off'
send first "$campaign"
sql 'ALTER ROLE app RESET sendcampaign.receipts'
sweep 'statuses "sent"'
ask plain 'set?deliver-after=0&price-after=0' >/dev/null
sweep 'then "delivered" and prices'
ask plain 'set?latency=300' >/dev/null
sql 'TRUNCATE sendcampaign.receipt_data;
    UPDATE sendcampaign.run_data SET delivered = 0, undelivered = 0, unconfirmed = 0'
sweep '"delivered", 300 ms a page'
sql 'TRUNCATE sendcampaign.receipt_data;
    UPDATE sendcampaign.run_data SET delivered = 0, undelivered = 0, unconfirmed = 0'
set_senders +15005551011
sweep '"delivered", 300 ms a page, one part'
ask plain 'set?latency=0' >/dev/null

show sweep "A sweep of a list of $messages messages" "
SELECT what, lists - lists_before AS pages,
       round(extract(epoch FROM ended_at - began_at), 1) AS seconds,
       round((cpu - cpu_before)::numeric, 2) AS cpu_s,
       round(((cpu - cpu_before) / $messages * 1e6)::numeric, 1) AS cpu_us_per_receipt,
       round((lsn - lsn_before) / $messages) AS wal_bytes_per_receipt,
       round((size - size_before) / $messages::numeric) AS table_bytes_per_receipt, delivered
FROM sweeps ORDER BY n"

# A web server's calls, each in a transaction of its own: first "sent", then
# "delivered", then the same again.  The CPU time of the session has ticks of 10 ms.
calls=$(scaled 20000)
callback='https://example.org/twilio'
sql 'CREATE EXTENSION IF NOT EXISTS pgcrypto'
sql "UPDATE groups SET configuration = configuration || '{\"twilioStatusCallback\": \"$callback\"}';
    TRUNCATE sendcampaign.receipt_data;
    UPDATE sendcampaign.run_data SET delivered = 0, undelivered = 0, unconfirmed = 0;
    CREATE TABLE request AS
    SELECT n, status, 'AccountSid=$account&MessageSid=' || sid || '&MessageStatus=' || status AS body,
        encode(hmac('${callback}AccountSid${account}MessageSid' || sid || 'MessageStatus' || status, '$token', 'sha1'),
            'base64') AS signature
    FROM (SELECT row_number() OVER (ORDER BY list_user_id) AS n, sid FROM sendcampaign.message_data LIMIT $calls) m,
        unnest('{sent,delivered}'::text[]) status;
    CREATE INDEX ON request (status, n)"
sql 'VACUUM ANALYZE'
sql "CREATE FUNCTION cpu_s() RETURNS double precision LANGUAGE sql AS \$\$
        SELECT (f[1]::int + f[2]::int) / 100.0
        FROM regexp_match(pg_read_file('/proc/self/stat'), '\) (?:\S+ ){11}(\d+) (\d+)') f \$\$;
    CREATE TABLE receiving (n serial, what text, cpu double precision, seconds double precision, new bigint)"

# receive WHAT STATUS [SYNCHRONOUS_COMMIT]
receive() {
    sql 'CHECKPOINT'
    PGOPTIONS="-c synchronous_commit=${3:-off}" long_sql "DO \$\$
    DECLARE
        r record;
        news bigint := 0;
        cpu double precision;
        began timestamptz;
    BEGIN
        cpu := cpu_s();
        began := clock_timestamp();
        FOR r IN SELECT signature, body FROM request WHERE status = '$2' ORDER BY n LOOP
            news := news + (sendcampaign.receive('$callback', r.signature, r.body) = 'receipt')::int;
            COMMIT;
        END LOOP;
        INSERT INTO receiving (what, cpu, seconds, new)
        SELECT '$1', cpu_s() - cpu, extract(epoch FROM clock_timestamp() - began), news;
    END \$\$"
}
receive 'first reports' sent
receive 'later ones' delivered
receive 'known ones' delivered
sql 'TRUNCATE sendcampaign.receipt_data'
receive 'first reports, on disk' delivered on
show receive "$calls calls of receive(), each committed, without waiting for the disk, and waiting for it" "
SELECT what, round((cpu / $calls * 1e6)::numeric, 1) AS cpu_us_per_call,
       round((seconds / $calls * 1000)::numeric, 2) AS ms_per_call, new
FROM receiving ORDER BY n"

sql "CREATE TABLE proof (cpu double precision, seconds double precision, differences bigint)"
long_sql "DO \$\$
    DECLARE
        cpu double precision := cpu_s();
        began timestamptz := clock_timestamp();
        found bigint;
    BEGIN
        SELECT count(*) INTO found FROM sendcampaign.run_data r, sendcampaign.reconcile(r.job_id);
        INSERT INTO proof SELECT cpu_s() - cpu, extract(epoch FROM clock_timestamp() - began), found;
    END \$\$"
show reconcile "reconcile() of $messages messages, no latency" "
SELECT round(seconds::numeric, 2) AS seconds, round((cpu / $messages * 1e6)::numeric, 1) AS cpu_us_per_message,
       differences FROM proof"

# How long after Twilio has delivered it a message is known to be delivered, if
# only the list tells: Twilio's time has seconds.
sql 'CREATE TABLE delay AS SELECT NULL::double precision AS seconds LIMIT 0'
send_to plain 'sent-after=0&deliver-after=1000'
sql 'UPDATE sendcampaign.run_data SET sweep_at = NULL'
send delay "$(create_campaign 1000)"
wait_while "SELECT delivered < sent AND sendcampaign.wake() >= 0 FROM sendcampaign.run_data ORDER BY id DESC LIMIT 1"
show delay 'Seconds from "delivered" to our row, by sweeps' "
SELECT round(min(s)::numeric, 1) AS min, round(median(s)::numeric, 1) AS median, round(max(s)::numeric, 1) AS max
FROM (SELECT bench.seconds(pg_xact_commit_timestamp(d.xmin) - d.updated_at) AS s FROM sendcampaign.receipt_data d
    WHERE run_id = (SELECT max(id) FROM sendcampaign.run_data)) d"

messages=$(scaled 100000)
# The list is read all the time while messages are sent.
measure_sending() {
    local campaign job looks
    send_to plain 'sent-after=0&deliver-after=0'
    sql "ALTER ROLE app SET sendcampaign.receipts = $1"
    empty_tables
    campaign=$(create_campaign "$messages")
    job=$(call "receipts $1 $2" "$campaign")
    while is_under_way "$job"; do
        sql "UPDATE sendcampaign.run_data SET sweep_at = now() WHERE id = (SELECT id FROM sendcampaign.run_data
            WHERE sweep_at > now() FOR UPDATE SKIP LOCKED)"
        sleep 0.5
    done
    sql "INSERT INTO sending SELECT '$1', $2, run_s, (SELECT sum(delivered) FROM sendcampaign.run_data)
        FROM bench.run WHERE job_id = $job"
}

sql 'CREATE TABLE sending (receipts text, round int, seconds double precision, delivered bigint)'
for ((round = 1; round <= rounds; round++)); do
    measure_sending off $round
    measure_sending on $round
done
show sending "Messages a second, no latency, $messages messages, while the list is swept all the time and without receipts; medians of $rounds rounds" "
SELECT round(median($messages / o.seconds)) AS without_per_s,
       round(median($messages / w.seconds)) AS with_per_s,
       round(median(o.seconds / w.seconds)::numeric, 3) AS ratio,
       round(median(w.delivered::double precision)) AS delivered_meanwhile
FROM sending o JOIN sending w USING (round)
WHERE o.receipts = 'off' AND w.receipts = 'on'"
