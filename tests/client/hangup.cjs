// The connection pool trap of older LibreChat versions: an axios call leaves a time-out listener on its socket, and the
// next node-fetch call on that socket dies after five silent seconds. One line of JSON says whether it did.
//   node hangup.cjs <folder with node_modules> <axios package>
// LIBRECHAT_CODE_BASEURL says where the front end is, KCR_API_KEY is the key to send.
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');

const [, , folder, axiosPackage] = process.argv;
const load = createRequire(path.join(path.resolve(folder), 'package.json'));
const axios = load(axiosPackage);
const fetch = load('node-fetch');
const base = process.env.LIBRECHAT_CODE_BASEURL;

async function probe() {
  const health = await axios.get(`${base}/health`, { timeout: 5000 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  const began = Date.now();
  const response = await fetch(`${base}/exec`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-API-Key': process.env.KCR_API_KEY },
    body: JSON.stringify({ lang: 'py', code: 'import time\ntime.sleep(8)\nprint("woke")' }),
  });
  const answer = await response.json();
  return {
    health: health.status, connection: health.headers.connection, status: response.status,
    stdout: answer.stdout, ms: Date.now() - began,
  };
}

probe()
  .catch((error) => ({ failed: error.message }))
  .then((result) => process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0)));
