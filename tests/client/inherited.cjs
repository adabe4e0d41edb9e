// Three calls with attached files, through the client package: what each call was told, and what is attached to the next.
// Order: that of librechat.cjs, and
//   files     references of the attached files
//   carrier   what carries them into each call: host (the same ones again) or ToolNode
'use strict';

const lc = require('./librechat.cjs');

const CALLS = 3;
const order = lc.readOrder();
process.env.LIBRECHAT_CODE_BASEURL = order.base;
const agents = lc.clientPackage(order.agents);
const toolWith = (files) => agents.createCodeExecutionTool({ user_id: lc.USER, files, ...lc.keyParameters(order) });
const sessions = new Map();

const carriers = {
  host: () => (code) => toolWith(order.files).invoke(lc.toolCall({ lang: 'py', code })),
  ToolNode: () => {
    const [{ storage_session_id, session_id }] = order.files;
    sessions.set('execute_code', {
      session_id: storage_session_id ?? session_id, files: order.files, lastUpdated: Date.now(),
    });
    const call = lc.toolNode(order, agents, toolWith(undefined), sessions);
    return async (code) => (await call({ lang: 'py', code }))[0];
  },
};

async function play() {
  const call = carriers[order.carrier]();
  const told = [];
  for (let number = 0; number < CALLS; number += 1) {
    const message = await call(`print(${number})`);
    told.push({ content: message.content, files: message.artifact.files ?? [] });
  }
  return { told, kept: sessions.get('execute_code')?.files ?? [] };
}

lc.finish(play());
