// The sequence of the hang-up investigation: an upload, two looks at the file's session, and at once a run of ten
// seconds. Order: that of librechat.cjs, and
//   bytes    size of the attached file; null: no file, and none of the calls that go with one
//   client   node-fetch, programmatic (/exec/programmatic by node-fetch), or tool (execute_code)
'use strict';

const { lastWasReused } = require('./connections.cjs');
const lc = require('./librechat.cjs');

const SECONDS = 10;
const NAME = 'attached.bin';
const order = lc.readOrder();

const program = (attached) =>
  `import os, time\ntime.sleep(${SECONDS})\nprint("woke", ${attached ? `os.path.getsize("/mnt/data/${NAME}")` : '"alone"'})`;

async function attach() {
  const file = await lc.upload(order, NAME, Buffer.alloc(order.bytes, 'x'));
  const looks = [];
  for (let count = 0; count < 2; count += 1) {
    const look = await lc.summary(order, file.session);
    looks.push({
      status: look.status,
      connection: look.headers.connection ?? null,
      found: look.data.some((one) => one.name.startsWith(`${file.session}/${file.id}`)),
    });
  }
  return { looks, references: [lc.reference(order, { ...file, name: NAME })] };
}

const fetched = (path, more) => (code, files) => {
  const fetch = lc.packagesIn(order.http)('node-fetch');
  return async () => {
    const response = await fetch(`${order.base}${path}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...lc.headers(order) },
      body: JSON.stringify({ lang: 'py', code, user_id: lc.USER, files, ...more }),
    });
    const body = await response.json();
    return { status: response.status, stdout: body.stdout, stderr: body.stderr };
  };
};

/** All return a function, so that what is made before the call is not timed. */
const clients = {
  'node-fetch': fetched('/exec', {}),
  programmatic: fetched('/exec/programmatic', { tools: [{ name: 'x' }] }),
  tool: (code, files) => {
    process.env.LIBRECHAT_CODE_BASEURL = order.base;
    const { createCodeExecutionTool } = require(lc.toolFile(order.agents));
    const tool = createCodeExecutionTool({ user_id: lc.USER, files, ...lc.keyParameters(order) });
    return async () => ({ status: 200, stdout: (await tool.invoke(lc.toolCall({ lang: 'py', code }))).content });
  },
};

async function play() {
  const { looks, references } = order.bytes === null ? { looks: [], references: [] } : await attach();
  const run = clients[order.client](program(references.length > 0), references);
  const began = performance.now();
  const result = await run().catch((error) => ({ failed: error.message }));
  return { looks, reused: lastWasReused(new URL(order.base).host), ms: Math.round(performance.now() - began), ...result };
}

lc.finish(play());
