'use strict';

// An application like many others: Sequelize 6, underscored tables, a background
// job that it polls.  Prints what it saw as one line of JSON.

const { Sequelize, DataTypes } = require('sequelize');

const sequelize = new Sequelize({
  dialect: 'postgres',
  host: process.env.PGHOST,
  port: process.env.PGPORT,
  database: 'postgres',
  username: 'app',
  logging: false,
});

const options = (tableName) => ({ tableName, underscored: true, timestamps: true });
const id = { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true };
const json = DataTypes.JSONB;

const Group = sequelize.define('Group', {
  name: { type: DataTypes.STRING, allowNull: false },
  access: { type: DataTypes.INTEGER, allowNull: false },
  configuration: json,
}, options('groups'));
const AcList = sequelize.define('AcList', {
  id, name: DataTypes.STRING, data: json, user_id: DataTypes.INTEGER,
  community_id: DataTypes.INTEGER, post_id: DataTypes.INTEGER,
}, options('ac_lists'));
const AcCampaign = sequelize.define('AcCampaign', {
  id, data: json, user_id: DataTypes.INTEGER,
}, options('ac_campaigns'));
const AcListUser = sequelize.define('AcListUser', {
  id, data: json, user_id: DataTypes.INTEGER,
}, options('ac_list_users'));
const AcBackgroundJob = sequelize.define('AcBackgroundJob', {
  id,
  progress: { type: DataTypes.INTEGER, allowNull: false },
  error: DataTypes.TEXT,
  data: json,
  internal_data: json,
}, options('ac_background_jobs'));

AcList.belongsTo(Group, { foreignKey: 'group_id' });
AcCampaign.belongsTo(AcList, { foreignKey: 'ac_list_id' });
AcListUser.belongsTo(AcList, { foreignKey: 'ac_list_id' });

async function fill(configuration) {
  const group = await Group.create({ name: 'Town', access: 1, configuration });
  const list = await AcList.create({ name: 'Citizens', group_id: group.id, data: {} });
  for (let i = 0; i < 50; i++) {
    await AcListUser.create({
      ac_list_id: list.id,
      data: {
        sms: `+1555${String(i).padStart(7, '0')}`,
        sentCount: 0,
        openCount: 0,
        completeCount: 0,
      },
    });
  }
  return AcCampaign.create({
    ac_list_id: list.id,
    data: { message: 'Halló, Þór!', baseUrl: 'https://example.org/survey' },
  });
}

async function send(campaign, transaction) {
  const job = await AcBackgroundJob.create({ progress: 5, data: { kept: true } }, { transaction });
  const [rows] = await sequelize.query('SELECT send_campaign(:campaign, :job) AS job', {
    replacements: { campaign: campaign.id, job: job.id }, transaction,
  });
  return Number(rows[0].job);
}

const getSendStatus = (jobId) => AcBackgroundJob.findOne({
  where: { id: jobId }, attributes: ['id', 'progress', 'error', 'data'],
});

async function waitForEnd(jobId) {
  for (let i = 0; i < 600; i++) {
    const job = await getSendStatus(jobId);
    if (job.progress === 100 || job.error) return job.toJSON();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`job ${jobId} did not end`);
}

async function main() {
  await sequelize.sync();
  const campaign = await fill(JSON.parse(process.env.CONFIGURATION));
  const abandoned = await sequelize.transaction((t) => send(campaign, t).then(() => {
    throw new Error('rolled back');
  })).catch((error) => error.message);
  const jobId = await sequelize.transaction((t) => send(campaign, t));
  const job = await waitForEnd(jobId);
  const sentCounts = (await AcListUser.findAll()).map((user) => user.data.sentCount);
  console.log(JSON.stringify({ abandoned, jobId, job, sentCounts }));
  await sequelize.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
