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
const AGAIN = `import os, pandas as pd
print("now", pd.read_csv("${CSV}")["sold"].sum())
os.makedirs("out/deep")
open("out/deep/notes é.txt", "w").write("kept")`;
const NESTED = `print("notes", open("/mnt/data/out/deep/notes é.txt").read())`;

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
  const call = lc.toolNode(order, agents, toolWith([attached]));
  return async (code) => {
    const [message] = await call({ lang: 'py', code, ...previous });
    previous = { session_id: message.artifact.session_id };
    return message;
  };
};

/** ToolNode keeps the files of all calls; the host only says once which are attached. */
carriers.ToolNode = (attached) => {
  const session = attached.storage_session_id ?? attached.session_id;
  const sessions = new Map([['execute_code', { session_id: session, files: [attached], lastUpdated: Date.now() }]]);
  const call = lc.toolNode(order, agents, toolWith(undefined), sessions);
  return async (code) => (await call({ lang: 'py', code }))[0];
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
  const fourth = await call(NESTED);
  const messages = [first, second, third, fourth];
  return {
    upload: file.answer, modified, plot, changed,
    contents: messages.map((message) => message.content),
    artifacts: messages.map((message) => message.artifact),
  };
}

lc.finish(play());
