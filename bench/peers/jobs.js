'use strict';

// A job queue in PostgreSQL: Graphile Worker, one job for each message.
//   node jobs.js CAMPAIGN CONCURRENCY
// Prints the number of messages and the seconds that the jobs took, which are
// all queued before, in one statement.

const { EventEmitter } = require('events');
const { Logger, run, runMigrations } = require('graphile-worker');
const { Pool } = require('pg');

const [campaignId, concurrency] = process.argv.slice(2).map(Number);
const client = require('./client')(concurrency);
const pool = new Pool({ max: 50 });
const silent = new Logger(() => () => {});

const queue = `
  SELECT graphile_worker.add_job('send', json_build_object('id', u.id, 'to', u.data->>'sms', 'body',
      format('%s %s?yu=%s&yc=%s', c.data->>'message', c.data->>'baseUrl', u.id, c.id)))
  FROM ac_campaigns c JOIN ac_list_users u USING (ac_list_id) WHERE c.id = $1`;

const count = `
  UPDATE ac_list_users
  SET data = jsonb_set(data, '{sentCount}', to_jsonb((data->>'sentCount')::integer + 1)), updated_at = now()
  WHERE id = $1`;

async function send({ id, to, body }, { withPgClient }) {
  await client.messages.create({ to, from: process.env.SENDER, body });
  await withPgClient((connection) => connection.query(count, [id]));
}

// Until so many jobs have ended; one that fails is an error.
function ended(events, jobs) {
  let left = jobs;
  return new Promise((resolve, reject) => {
    events.on('job:error', ({ error }) => reject(error));
    events.on('job:success', () => {
      left -= 1;
      if (left === 0) resolve();
    });
  });
}

async function main() {
  const fail = (error) => { throw error; };
  pool.on('error', fail).on('connect', (connection) => connection.on('error', fail));
  await runMigrations({ pgPool: pool, logger: silent });
  const { rowCount } = await pool.query(queue, [campaignId]);
  const events = new EventEmitter();
  const all = ended(events, rowCount);
  const begin = performance.now();
  const runner = await run({
    pgPool: pool,
    events,
    noHandleSignals: true,
    taskList: { send },
    preset: {
      worker: {
        concurrentJobs: concurrency,
        localQueue: { size: concurrency + 1 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        logger: silent,
      },
    },
  });
  await all;
  console.log(rowCount, (performance.now() - begin) / 1000);
  await runner.stop();
  await pool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
