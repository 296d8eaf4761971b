'use strict';

// The models of an application whose users own everything: lists and campaigns are
// made in SQL, and read as the application reads its own.  Prints what it saw as
// one line of JSON.

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
const user_id = { type: DataTypes.INTEGER, allowNull: false };

const Group = sequelize.define('Group', { configuration: json }, options('groups'));
const AcList = sequelize.define('AcList', {
  id, name: { type: DataTypes.STRING, allowNull: false }, data: json, user_id,
  community_id: DataTypes.INTEGER,
}, options('ac_lists'));
const AcCampaign = sequelize.define('AcCampaign', { id, data: json, user_id }, options('ac_campaigns'));
const AcListUser = sequelize.define('AcListUser', { id, data: json, user_id }, options('ac_list_users'));
const AcBackgroundJob = sequelize.define('AcBackgroundJob', {
  id, progress: { type: DataTypes.INTEGER, allowNull: false }, error: DataTypes.TEXT,
  data: json, internal_data: json,
}, options('ac_background_jobs'));

AcList.belongsTo(Group, { foreignKey: 'group_id' });
AcCampaign.belongsTo(AcList, { foreignKey: 'ac_list_id' });
AcListUser.belongsTo(AcList, { foreignKey: 'ac_list_id' });

const query = async (sql, replacements) => (await sequelize.query(sql, { replacements }))[0];

async function waitForEnd(jobId) {
  for (let i = 0; i < 1200; i++) {
    const job = await AcBackgroundJob.findByPk(jobId);
    if (job.progress === 100 || job.error) return job.toJSON();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`job ${jobId} did not end`);
}

async function main() {
  await sequelize.sync();
  const group = await Group.create({ configuration: JSON.parse(process.env.CONFIGURATION) });
  const lacking = await query("SELECT sendcampaign.create_list(:group, 'No user')", { group: group.id })
    .then(() => 'created', (error) => error.message);
  const [{ list }] = await query(
    "SELECT sendcampaign.create_list(:group, 'Citizens', 7, '{\"community_id\": 3}') AS list",
    { group: group.id });
  const refused = await query(
    'SELECT * FROM sendcampaign.add_list_users(:list, users => :users, user_id => 7)',
    { list, users: JSON.stringify([
      { sms: '+1 555 000 0001', name: 'Ann' }, { sms: '612 3456', name: 'Ben' }, { sms: 'none' },
    ]) });
  const [{ campaign }] = await query(
    "SELECT sendcampaign.create_campaign(:list, 'Hi {{name}}!', NULL, 7) AS campaign", { list });
  const [{ job }] = await query('SELECT send_campaign(:campaign) AS job', { campaign });
  const sent = await waitForEnd(Number(job));
  const [{ message }] = await query(
    "SELECT sendcampaign.send_message(:group, 'Hello', ARRAY['+15550000009'], NULL, 7,"
    + " '{\"name\": \"One\"}') AS message", { group: group.id });
  const second = await waitForEnd(Number(message));
  const made = await AcList.findByPk(Number(list));
  const users = await AcListUser.findAll({ where: { ac_list_id: Number(list) }, order: ['id'] });
  console.log(JSON.stringify({
    lacking, refused, sent: sent.data.sent, second: second.data.sent,
    list: { name: made.name, user_id: made.user_id, community_id: made.community_id, data: made.data,
      dated: made.createdAt instanceof Date && made.updatedAt instanceof Date },
    users: users.map((user) => ({ user_id: user.user_id, data: user.data })),
  }));
  await sequelize.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
