'use strict';

// Passes what Twilio posts to sendcampaign.receive(). Connects as PGUSER, a role
// that may do nothing else; Twilio's URL is https://example.org/twilio.

const express = require('express');
const { Pool } = require('pg');

const report = (error) => console.error(error.message || error.code);

const pool = new Pool();
pool.on('error', report); // of an idle connection; without this, the process would end
const app = express();

app.post('/twilio', express.text({ type: '*/*', limit: '128kb' }), async (request, response) => {
  const url = `https://${request.get('host')}${request.originalUrl}`;
  const values = [url, request.get('X-Twilio-Signature'), request.body];
  try {
    await pool.query('SELECT sendcampaign.receive($1, $2, $3)', values);
    response.type('text/xml').send('<Response/>'); // no answer to a reply
  } catch (error) {
    const isRefused = ['28000', '22023'].includes(error.code);
    if (!isRefused) report(error);
    response.sendStatus(isRefused ? 403 : 500);
  }
});

const server = app.listen(process.env.PORT || 3000, '127.0.0.1', () => {
  console.log(`listening on port ${server.address().port}`);
});
