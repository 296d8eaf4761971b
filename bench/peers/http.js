'use strict';

// Sends a message with as little as Node.js needs for that, so that job queues
// are compared and not clients. Connections are kept alive.

const http = require('http');

const api = new URL(process.env.API_URL);

module.exports = (concurrency) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency });

  function read(response, resolve, reject) {
    let text = '';
    response.setEncoding('utf8');
    response.on('data', (part) => { text += part; });
    response.on('error', reject);
    response.on('end', () => {
      if (response.statusCode === 201) resolve(JSON.parse(text).sid);
      else reject(new Error(`${response.statusCode} ${text}`));
    });
  }

  return (account, token, message) => new Promise((resolve, reject) => {
    const form = new URLSearchParams(message).toString();
    const request = http.request({
      agent,
      method: 'POST',
      host: api.hostname,
      port: api.port,
      path: `/2010-04-01/Accounts/${account}/Messages.json`,
      auth: `${account}:${token}`,
      headers: {
        'Content-Type': 'application/x-www-form-urlencoded',
        'Content-Length': Buffer.byteLength(form),
      },
    }, (response) => read(response, resolve, reject));
    request.on('error', reject);
    request.end(form);
  });
};
