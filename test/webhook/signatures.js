'use strict';

// Reads requests as JSON, [{url, params, token, signature}], or with a body in
// place of params; prints for each what Twilio's library would have signed, and
// whether it accepts the signature.  The URL is that without the body's hash.

const fs = require('fs');
const { validateRequest, validateRequestWithBody } = require('twilio');
const { getExpectedBodyHash, getExpectedTwilioSignature } =
  require('twilio/lib/webhooks/webhooks');

const requests = JSON.parse(fs.readFileSync(0, 'utf8'));
const withHash = (url, body) =>
  `${url}${url.includes('?') ? '&' : '?'}bodySHA256=${getExpectedBodyHash(body)}`;
const results = requests.map(({ url, params, body, token, signature }) => (params ? {
  expected: getExpectedTwilioSignature(token, url, params),
  valid: validateRequest(token, signature, url, params),
} : {
  expected: getExpectedTwilioSignature(token, withHash(url, body), {}),
  valid: validateRequestWithBody(token, signature, withHash(url, body), body),
}));
console.log(JSON.stringify(results));
