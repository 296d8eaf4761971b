'use strict';

// Twilio's helper library, with its requests brought to the local Twilio.
// Connections are kept alive, for as many requests at once as are wanted.

const http = require('http');
const twilio = require('twilio');

class LocalClient extends twilio.RequestClient {
  constructor(concurrency) {
    super();
    this.axios.defaults.httpAgent = new http.Agent({ keepAlive: true, maxSockets: concurrency });
  }

  request(options) {
    const uri = options.uri.replace('https://api.twilio.com', process.env.API_URL);
    return super.request({ ...options, uri });
  }
}

module.exports = (concurrency) => twilio(process.env.ACCOUNT, process.env.TOKEN, {
  httpClient: new LocalClient(concurrency),
});
