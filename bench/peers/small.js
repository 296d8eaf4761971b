'use strict';

// Campaigns of one recipient, by a job queue in PostgreSQL: a job for each reads
// the campaign, sends the message, and counts it.
//   node small.js QUEUE JOBS CONCURRENCY READY
// Others queue the jobs, with the statement that is written to the file READY
// once the queue works. Prints when the last job ended, in seconds since 1970,
// and the median and the 99th percentile of the ms from queued to finished.
// The queues' options are those that their documentation has for many short jobs.

const { EventEmitter } = require('events');
const { renameSync, writeFileSync } = require('fs');
const { Logger, run } = require('graphile-worker');
const { Pool } = require('pg');
const { PgBoss } = require('pg-boss');

const [queue, jobs, concurrency, ready] = process.argv.slice(2);
const create = require('./http')(Number(concurrency));

const read = {
  name: 'read',
  text: `
    SELECT g.configuration, u.id, u.data->>'sms' AS to,
           format('%s %s?yu=%s&yc=%s', c.data->>'message', c.data->>'baseUrl', u.id, c.id) AS body
    FROM ac_campaigns c
    JOIN ac_lists l ON l.id = c.ac_list_id
    JOIN groups g ON g.id = l.group_id
    JOIN ac_list_users u ON u.ac_list_id = l.id
    WHERE c.id = $1`,
};

const count = {
  name: 'count',
  text: `
    UPDATE ac_list_users
    SET data = jsonb_set(data, '{sentCount}', to_jsonb((data->>'sentCount')::integer + 1)), updated_at = now()
    WHERE id = $1`,
};

async function send(pool, campaign) {
  const { rows } = await pool.query({ ...read, values: [campaign] });
  for (const { configuration, id, to, body } of rows) {
    await create(configuration.twilioAccountSid, configuration.twilioAuthToken, {
      To: to, From: configuration.twilioFromSmsNumber, Body: body,
    });
    await pool.query({ ...count, values: [id] });
  }
}

// The file is there when it is complete.
function tell(statement) {
  writeFileSync(`${ready}.new`, statement);
  renameSync(`${ready}.new`, ready);
}

function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

function print(end, times) {
  const sorted = times.sort((a, b) => a - b);
  console.log((end / 1000).toFixed(3), percentile(sorted, 0.5).toFixed(1), percentile(sorted, 0.99).toFixed(1));
}

// Jobs that have ended, and for how long each was there; one that fails is an error.
async function byGraphileWorker(pool) {
  const events = new EventEmitter();
  const times = [];
  const all = new Promise((resolve, reject) => {
    events.on('job:error', ({ error }) => reject(error));
    events.on('job:complete', ({ job }) => {
      times.push(Date.now() - job.payload.queuedAt);
      if (times.length === Number(jobs)) resolve(Date.now());
    });
  });
  const runner = await run({
    pgPool: pool,
    events,
    noHandleSignals: true,
    taskList: { send: ({ campaign }) => send(pool, campaign) },
    preset: {
      worker: {
        concurrentJobs: Number(concurrency),
        localQueue: { size: Number(concurrency) + 1 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        logger: new Logger(() => () => {}),
      },
    },
  });
  tell(`SELECT graphile_worker.add_job('send', json_build_object('campaign', :campaign,
    'queuedAt', extract(epoch FROM clock_timestamp()) * 1000));`);
  print(await all, times);
  await runner.stop();
}

async function byPgBoss(pool) {
  const batchSize = 20;
  const boss = new PgBoss({
    host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE,
    max: 20, useListenNotify: true,
  });
  let left = Number(jobs);
  let end;
  const all = new Promise((resolve, reject) => { end = resolve; boss.on('error', reject); });
  await boss.start();
  await boss.createQueue('send', { notify: true, retryLimit: 0 });
  const options = {
    batchSize, localConcurrency: Math.ceil(Number(concurrency) / batchSize), burstWhenBatchFull: true,
    pollingIntervalSeconds: 0.5, notifyPollingIntervalSeconds: 0.5,
  };
  await boss.work('send', options, async (batch) => {
    await Promise.all(batch.map(({ data }) => send(pool, data.campaign)));
    left -= batch.length;
    if (left === 0) end();
  });
  tell(`WITH queued AS (
      INSERT INTO pgboss.job (name, data) VALUES ('send', jsonb_build_object('campaign', :campaign)))
    SELECT pg_notify('pgboss_' || left(encode(sha224('pgboss'), 'hex'), 24), 'send');`);
  await all;
  await boss.stop({ graceful: true });
  const { rows } = await pool.query(`
    SELECT extract(epoch FROM completed_on) * 1000 AS end,
           extract(epoch FROM completed_on - created_on) * 1000 AS ms
    FROM pgboss.job WHERE name = 'send' AND state = 'completed'`);
  if (rows.length !== Number(jobs)) throw new Error(`${rows.length} jobs are completed`);
  print(Math.max(...rows.map((row) => Number(row.end))), rows.map((row) => Number(row.ms)));
}

async function main() {
  const pool = new Pool({ max: 50 });
  const fail = (error) => { throw error; };
  pool.on('error', fail).on('connect', (client) => client.on('error', fail));
  await (queue === 'graphile-worker' ? byGraphileWorker : byPgBoss)(pool);
  await pool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
