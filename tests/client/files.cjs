// Files through a whole conversation, with the client package: attach a CSV, plot it, fetch the picture, use both again.
// Order: that of librechat.cjs, and
//   carrier   what carries the files of one call into the next: host, model or ToolNode
'use strict';

const crypto = require('node:crypto');
const lc = require('./librechat.cjs');

const CSV = 'ventes été.csv';
const ROWS = 'month,sold\n1,10\n2,30\n3,2\n';
const PLOT = `import pandas as pd
import matplotlib.pyplot as plt
frame = pd.read_csv("${CSV}")
print("sold", frame["sold"].sum())
frame.plot(x="month", y="sold")
plt.savefig("plot.png")`;
const USE = `import hashlib
print("png", hashlib.sha256(open("plot.png", "rb").read()).hexdigest())
with open("${CSV}", "a") as table:
    table.write("4,100\\n")
print("added")`;
const AGAIN = `import pandas as pd
print("now", pd.read_csv("${CSV}")["sold"].sum())`;

const order = lc.readOrder();
process.env.LIBRECHAT_CODE_BASEURL = order.base;
const agents = lc.clientPackage(order.agents);
const toolWith = (files) => agents.createCodeExecutionTool({ user_id: lc.USER, files, ...lc.keyParameters(order) });

/** Where LibreChat looks for an output: older releases always in the session of the answer. */
const sessionOf = (file, artifact) =>
  (order.style.reference === 'session_id' ? artifact.session_id : file.storage_session_id ?? artifact.session_id);

async function fetched(artifact, name) {
  const file = (artifact.files ?? []).find((one) => one.name === name);
  if (!file) return null;
  const session = sessionOf(file, artifact);
  const answer = await lc.download(order, session, file.id);
  const bytes = Buffer.from(answer.data);
  return {
    reference: lc.reference(order, { id: file.id, session, name }),
    sha256: crypto.createHash('sha256').update(bytes).digest('hex'),
    text: name.endsWith('.csv') ? bytes.toString('utf8') : null,
    begins: bytes.subarray(0, 8).toString('latin1'),
    length: bytes.length,
    headers: { ...answer.headers },
  };
}

const carriers = {};

/** The host gives each tool the references of all files, the newest of each name: a conversation's next turn. */
carriers.host = (attached) => {
  const known = new Map([[CSV, attached]]);
  return async (code) => {
    const message = await toolWith([...known.values()]).invoke(lc.toolCall({ lang: 'py', code }));
    for (const file of message.artifact.files ?? []) {
      known.set(file.name, lc.reference(order, { ...file, session: sessionOf(file, message.artifact) }));
    }
    return message;
  };
};

/** The model names the session of the call before, whose files the tool then lists; the host gives the attached one. */
carriers.model = (attached) => {
  let previous = {};
  return async (code) => {
    const message = await toolWith([attached]).invoke(lc.toolCall({ lang: 'py', code, ...previous }));
    previous = { session_id: message.artifact.session_id };
    return message;
  };
};

/** ToolNode keeps the files of all calls; the host only says once which are attached. */
carriers.ToolNode = (attached) => {
  const { AIMessage } = lc.packagesIn(order.agents)('@langchain/core/messages');
  const tool = toolWith(undefined);
  const sessions = new Map([['execute_code', {
    session_id: attached.storage_session_id ?? attached.session_id, files: [attached], lastUpdated: Date.now(),
  }]]);
  const node = new agents.ToolNode({ tools: [tool], toolMap: new Map([[tool.name, tool]]), sessions, trace: false });
  let number = 0;
  return async (code) => {
    number += 1;
    const call = { id: `c${number}`, name: tool.name, type: 'tool_call', args: { lang: 'py', code } };
    const answer = await node.invoke(
      { messages: [new AIMessage({ content: '', tool_calls: [call] })] },
      { configurable: { thread_id: 't1', run_id: 'r1' } });
    return (answer.messages ?? answer)[0];
  };
};

async function play() {
  const file = await lc.upload(order, CSV, Buffer.from(ROWS));
  const modified = await lc.lastModified(order, file);
  const call = carriers[order.carrier](lc.reference(order, { ...file, name: CSV }));
  const first = await call(PLOT);
  const plot = await fetched(first.artifact, 'plot.png');
  const second = await call(USE);
  const changed = await fetched(second.artifact, CSV);
  const third = await call(AGAIN);
  return {
    upload: file.answer, modified, plot, changed,
    contents: [first, second, third].map((message) => message.content),
    artifacts: [first, second, third].map((message) => message.artifact),
  };
}

lc.finish(play());
