# What opt-outs cost recipients who have not opted out: a list with as many
# opt-outs as recipients, each next to one of their phone numbers in the index, is
# compared with the same list without opt-outs. They alternate, and the order
# changes each time, as the machine's speed may vary.

messages=$(scaled 1000000)
rounds=4

# Half of them are for the list's group, the others for all groups.
create_opt_outs() {
    sql "INSERT INTO sendcampaign.opt_out_data (phone, schema, group_id, role, role_oid)
        SELECT '+1555' || lpad(n::text, 7, '0') || '5', CASE WHEN n % 2 = 0 THEN 'public'::name END,
               CASE WHEN n % 2 = 0 THEN (SELECT max(id) FROM groups) END, 'app', 'app'::regrole
        FROM generate_series(1, $messages) n"
    sql 'VACUUM ANALYZE sendcampaign.opt_out_data'
    sql 'CHECKPOINT'
}

# measure with|without ROUND
measure() {
    local campaign
    send_to plain
    empty_tables
    campaign=$(create_campaign "$messages")
    [ "$1" = without ] || create_opt_outs
    send "$1" "$campaign"
    sql "INSERT INTO opt_outs SELECT '$1', $2, run_s, cpu_s FROM bench.run ORDER BY job_id DESC LIMIT 1"
}

sql 'CREATE TABLE opt_outs (opt_outs text, round int, seconds double precision, cpu_s double precision)'
alternate $rounds

show speed "Messages a second, no latency, $messages messages, with as many opt-outs and without any; medians of $rounds rounds" "
SELECT round(median($messages / o.seconds)) AS without_per_s,
       round(median($messages / w.seconds)) AS with_per_s,
       round(median(o.seconds / w.seconds)::numeric, 3) AS ratio,
       round(min(o.seconds / w.seconds)::numeric, 3) AS lowest_ratio,
       round(max(o.seconds / w.seconds)::numeric, 3) AS highest_ratio,
       round(median(o.cpu_s / $messages * 1e6)::numeric, 1) AS without_cpu_us,
       round(median(w.cpu_s / $messages * 1e6)::numeric, 1) AS with_cpu_us
FROM opt_outs o JOIN opt_outs w USING (round)
WHERE o.opt_outs = 'without' AND w.opt_outs = 'with'"
