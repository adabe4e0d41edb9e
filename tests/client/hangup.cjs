// Does a long run survive the connection pool of a LibreChat process? Takes an order:
//   that of librechat.cjs without `base` and `axios`, `seconds` that runs take, and `cases`
// runs all cases at once, and prints their results in the same order. A case:
//   id        what it is called
//   base      address of a server, or
//   server    what to tell fake_server.cjs
//   axios     package that makes the calls before the run; null: there are none
//   before    those calls, out of `calls` below (default: list)
//   timeout   axios' time limit in milliseconds; null: none
//   ownAgent  whether axios gets an agent of its own that keeps no connections, as newer LibreChat does it
//   client    what makes the run: node-fetch, undici (Node's own fetch), programmatic (/exec/programmatic by node-fetch),
//             tool (execute_code) or tools (run_tools_with_code)
//   pause     milliseconds between the calls and the run (50)
//   seconds   how long the run takes, instead of the order's
// Connections are pooled by host and port: every case needs an address that no other case of the process has.
'use strict';

const http = require('node:http');
const { lastWasReused } = require('./connections.cjs');
const { startServer } = require('./fake_server.cjs');
const lc = require('./librechat.cjs');

const order = lc.readOrder();
const load = lc.packagesIn(order.http);
const nodeFetch = load('node-fetch');
const FormData = load('form-data');

const ID = 'q3v8m0k2x7c1z5n9b4t6w';
const calls = {
  list: (axios, base, options) => axios.get(`${base}/files/${ID}?detail=summary`, options),
  object: (axios, base, options) => axios.get(`${base}/sessions/${ID}/objects/${ID}`, options),
  download: (axios, base, options) =>
    axios.get(`${base}/download/${ID}/${ID}`, { ...options, responseType: 'arraybuffer' }),
  upload: (axios, base, options) => {
    const form = new FormData();
    form.append('file', Buffer.from('a,b\n1,2\n'), 'data.csv');
    return axios.post(`${base}/upload`, form, { ...options, headers: { ...options.headers, ...form.getHeaders() } });
  },
};

/** What makes the run. Each is called before the clock starts and returns what is timed. */
const clients = {
  'node-fetch': (base, seconds) => () => fetched(nodeFetch, base, seconds),
  programmatic: (base, seconds) => () => fetched(nodeFetch, base, seconds, '/exec/programmatic', { tools: [{ name: 'x' }] }),
  undici: (base, seconds) => () => fetched(fetch, base, seconds),
  tool: (base, seconds) => {
    const tool = toolFor(base);
    return async () => {
      const message = await tool.invoke(lc.toolCall({ lang: 'py', code: sleeping(seconds) }));
      return { stdout: message.content };
    };
  },
};

clients.tools = (base, seconds) => {
  const tool = programmaticFor(base);
  const toolMap = new Map([['x', { invoke: async () => 1 }]]);
  const toolDefs = [{ name: 'x', allowed_callers: ['code_execution'], parameters: { type: 'object', properties: {} } }];
  return async () => {
    const message = await tool.invoke(
      { ...lc.toolCall({ code: sleeping(seconds) }), name: 'run_tools_with_code', toolMap, toolDefs });
    return { stdout: message.content };
  };
};

const sleeping = (seconds) => `import time\ntime.sleep(${seconds})\nprint("woke")`;

async function fetched(using, base, seconds, path = '/exec', more = {}) {
  const response = await using(`${base}${path}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...lc.headers(order), 'X-Seconds': `${seconds}` },
    body: JSON.stringify({ lang: 'py', code: sleeping(seconds), ...more }),
  });
  const body = await response.json();
  return { status: response.status, stdout: body.stdout };
}

/** The tool with a base URL, which older versions read once, when their file is loaded. */
function toolFor(base) {
  const file = lc.toolFile(order.agents);
  process.env.LIBRECHAT_CODE_BASEURL = base;
  delete require.cache[file];
  const { createCodeExecutionTool } = require(file);
  return createCodeExecutionTool({ user_id: lc.USER, ...lc.keyParameters(order) });
}

/** The programmatic tool of a version that takes a base URL. */
function programmaticFor(base) {
  const { createProgrammaticToolCallingTool } = lc.clientPackage(order.agents);
  return createProgrammaticToolCallingTool({ baseUrl: base, ...lc.keyParameters(order) });
}

async function callBefore(one, base) {
  const options = { headers: lc.headers(order), validateStatus: () => true };
  if (one.timeout) options.timeout = one.timeout;
  if (one.ownAgent) options.httpAgent = new http.Agent({ keepAlive: false });
  let last = null;
  for (const name of one.before ?? ['list']) last = await calls[name](load(one.axios), base, options);
  return last.headers.connection ?? null;
}

async function run(one) {
  const server = one.server ? await startServer(one.server) : null;
  const base = server ? server.base : one.base;
  const makeRun = clients[one.client ?? 'node-fetch'](base, one.seconds ?? order.seconds);
  const connection = one.axios ? await callBefore(one, base) : null;
  await lc.wait(one.pause ?? 50);
  const began = performance.now();
  const result = await makeRun()
    .catch((error) => ({ failed: `${error.message} ${error.cause?.message ?? ''}`.trim() }));
  const ms = Math.round(performance.now() - began);
  server?.stop();
  return { id: one.id, connection, reused: lastWasReused(new URL(base).host), ms, ...result };
}

lc.finish(Promise.all(order.cases.map(run)));
