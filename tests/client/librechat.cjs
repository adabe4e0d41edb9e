// The calls a LibreChat process makes, in the words of its older and newer releases. Scripts get an order on standard
// input, of which this file uses:
//   base     address of the front end
//   key      API key
//   http     folder with axios, form-data and node-fetch
//   axios    which axios package in it
//   agents   folder with the client package
//   style    {"reference": "session_id" | "storage_session_id", "key": "parameter" | "header"}
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const USER = 'user-1';

/** The order of this process. */
const readOrder = () => JSON.parse(fs.readFileSync(0, 'utf8'));

/** `require` as the packages of a folder see it. */
const packagesIn = (folder) => createRequire(path.join(folder, 'package.json'));

/** One file of the client package. */
const packageFile = (folder, name) => path.join(folder, 'node_modules/@librechat/agents/dist/cjs/tools', name);

/** The file of the tool. */
const toolFile = (folder) => packageFile(folder, 'CodeExecutor.cjs');

/** The client package of a folder. The main file of 2.4 needs packages of others, and older ones keep ToolNode back. */
function clientPackage(folder) {
  const parts = { ...require(toolFile(folder)), ...require(packageFile(folder, 'ToolNode.cjs')) };
  try {
    return { ...parts, ...packagesIn(folder)('@librechat/agents') };
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    return parts;
  }
}

/**
 * Tool calls through the ToolNode of the client, which is what LibreChat's graph runs. Returns a function that takes
 * the arguments of one or more calls of one message of the model, and resolves to their messages.
 */
function toolNode(order, agents, tool, sessions = new Map()) {
  const { AIMessage } = packagesIn(order.agents)('@langchain/core/messages');
  const node = new agents.ToolNode({ tools: [tool], toolMap: new Map([[tool.name, tool]]), sessions, trace: false });
  let number = 0;
  return async (...calls) => {
    const asked = calls.map((args) => {
      number += 1;
      return { id: `c${number}`, name: tool.name, type: 'tool_call', args };
    });
    const answer = await node.invoke(
      { messages: [new AIMessage({ content: '', tool_calls: asked })] },
      { configurable: { thread_id: 't1', run_id: 'r1' } });
    return answer.messages ?? answer;
  };
}

/** What a tool is made with: older versions take the key, newer ones the headers to send. */
const keyParameters = (order, key = order.key) =>
  (order.style.key === 'parameter'
    ? { LIBRECHAT_CODE_API_KEY: key }
    : { authHeaders: async () => ({ 'X-API-Key': key }) });

/** A tool call as models make it; `injected` is what ToolNode adds. */
const toolCall = (args, injected = {}) => ({ id: 'tc_1', name: 'execute_code', type: 'tool_call', args, ...injected });

const headers = (order) => ({ 'User-Agent': 'LibreChat/1.0', 'X-API-Key': order.key });
const axiosOf = (order) => packagesIn(order.http)(order.axios);
const isNew = (order) => order.style.reference === 'storage_session_id';
/** Whose file it is: only newer releases say so. */
const scope = (order) => (isNew(order) ? { kind: 'user', id: USER } : {});

/** POST /upload of one file: `{session, id, answer}`. */
async function upload(order, name, content) {
  const form = new (packagesIn(order.http)('form-data'))();
  for (const [part, value] of Object.entries(scope(order))) form.append(part, value);
  form.append('file', content, name);
  const response = await axiosOf(order).post(`${order.base}/upload`, form, {
    headers: { ...form.getHeaders(), 'Content-Type': 'multipart/form-data', ...headers(order), 'User-Id': USER },
    maxContentLength: Infinity,
    maxBodyLength: Infinity,
    ...(isNew(order) ? { timeout: 120_000 } : {}),
  });
  const answer = response.data;
  return { session: answer[order.style.reference], id: answer.files[0].fileId, answer, headers: response.headers };
}

/** GET /files/{session}?detail=summary, as older releases ask whether a file is still there. */
const summary = (order, session) =>
  axiosOf(order).get(`${order.base}/files/${session}`, {
    params: { detail: 'summary' }, headers: headers(order), timeout: 5000,
  });

/** GET /sessions/{session}/objects/{id}, as newer ones do. */
const object = (order, session, id) =>
  axiosOf(order).get(`${order.base}/sessions/${session}/objects/${id}`, {
    params: scope(order), headers: headers(order), timeout: 5000,
  });

/** When a file was last changed, looked up as the release does; null if it takes it for gone. */
async function lastModified(order, file) {
  if (isNew(order)) return (await object(order, file.session, file.id)).data.lastModified ?? null;
  const listed = (await summary(order, file.session)).data;
  return listed.find((one) => one.name.startsWith(`${file.session}/${file.id}`))?.lastModified ?? null;
}

/** GET /download/{session}/{id}: the whole file in memory. */
const download = (order, session, id) =>
  axiosOf(order).get(`${order.base}/download/${session}/${id}`, {
    params: scope(order), headers: headers(order), timeout: 15_000, responseType: 'arraybuffer',
  });

/** A file as an element of `files` in POST /exec. */
const reference = (order, { id, session, name }) =>
  (isNew(order)
    ? { id, resource_id: USER, name, storage_session_id: session, kind: 'user' }
    : { id, session_id: session, name });

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Print a result as the last line and end; an error ends with status 1. */
const finish = (promise) =>
  promise
    .then((result) => process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0)))
    .catch((error) => process.stderr.write(`${error.stack}\n`, () => process.exit(1)));

module.exports = {
  USER, readOrder, packagesIn, toolFile, clientPackage, toolNode, keyParameters, toolCall, headers,
  upload, summary, lastModified, download, reference, wait, finish,
};
