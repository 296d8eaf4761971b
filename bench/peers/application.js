'use strict';

// What an application does by itself: loads the list, sends one message after
// the other or some at once, and saves each user's count with Sequelize.
//   node application.js CAMPAIGN CONCURRENCY
// Prints the number of messages and the seconds from the reading of the list.

const async = require('async');
const { Sequelize, DataTypes } = require('sequelize');

const [campaignId, concurrency] = process.argv.slice(2).map(Number);
const client = require('./client')(concurrency);

const sequelize = new Sequelize({
  dialect: 'postgres',
  host: process.env.PGHOST,
  database: process.env.PGDATABASE,
  username: 'app',
  logging: false,
  pool: { max: Math.min(concurrency, 20) },
});

const define = (table, columns) => sequelize.define(table, columns, { tableName: table, underscored: true });
const Campaign = define('ac_campaigns', { data: DataTypes.JSONB, ac_list_id: DataTypes.INTEGER });
const User = define('ac_list_users', { data: DataTypes.JSONB, ac_list_id: DataTypes.INTEGER });

async function send(campaign, user) {
  await client.messages.create({
    to: user.data.sms,
    from: process.env.SENDER,
    body: `${campaign.data.message} ${campaign.data.baseUrl}?yu=${user.id}&yc=${campaign.id}`,
  });
  user.data.sentCount += 1;
  user.changed('data', true);
  await user.save();
}

async function main() {
  await sequelize.authenticate();
  const begin = performance.now();
  const campaign = await Campaign.findByPk(campaignId);
  const users = await User.findAll({ where: { ac_list_id: campaign.ac_list_id } });
  const sendTo = async (user) => send(campaign, user);

  if (concurrency === 1) await async.eachSeries(users, sendTo);
  else await async.eachLimit(users, concurrency, sendTo);
  console.log(users.length, (performance.now() - begin) / 1000);
  await sequelize.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
