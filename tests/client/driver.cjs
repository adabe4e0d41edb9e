// Runs one scenario with the real client package and prints what it returned as one line of JSON.
//   node driver.cjs <folder with node_modules> <scenario>
// LIBRECHAT_CODE_BASEURL says where the front end is, KCR_API_KEY is the key to send.
'use strict';

const { createRequire } = require('node:module');
const path = require('node:path');

const [, , folder, scenario] = process.argv;
const load = createRequire(path.join(path.resolve(folder), 'package.json'));
const agents = load('@librechat/agents');
const { AIMessage } = load('@langchain/core/messages');

const headersOf = (key) => async () => ({ 'X-API-Key': key });
const toolWith = (key) =>
  agents.createCodeExecutionTool({ user_id: 'user-1', authHeaders: headersOf(key) });
const tool = toolWith(process.env.KCR_API_KEY);
const call = (args, extra = {}) => ({ id: 'tc_1', name: 'execute_code', type: 'tool_call', args, ...extra });

/** One call of the tool: the text the model reads, and what LibreChat keeps. A thrown error is a result too. */
async function run(code, extra = {}, injected = {}, using = tool) {
  const began = Date.now();
  try {
    const message = await using.invoke(call({ lang: 'py', code, ...extra }, injected));
    return { content: message.content, artifact: message.artifact, status: message.status, ms: Date.now() - began };
  } catch (error) {
    return { thrown: error.name, message: error.message, ms: Date.now() - began };
  }
}

/** Calls through the ToolNode LibreChat uses, which feeds the session of one call into the next. */
async function throughToolNode(programs) {
  const sessions = new Map();
  const node = new agents.ToolNode({
    tools: [tool], toolMap: new Map([[tool.name, tool]]), sessions, trace: false,
  });
  const contents = [];
  for (const [index, code] of programs.entries()) {
    const toolCall = { id: `c${index}`, name: 'execute_code', type: 'tool_call', args: { lang: 'py', code } };
    const message = new AIMessage({ content: '', tool_calls: [toolCall] });
    const answer = await node.invoke(
      { messages: [message] }, { configurable: { thread_id: 't1', run_id: 'r1' } });
    contents.push((answer.messages ?? answer)[0].content);
  }
  return { contents, session: sessions.get('execute_code')?.session_id ?? null };
}

const scenarios = {
  hello: () => run('print("hello")'),
  error: () => run('print("before", flush=True)\n1/0'),
  silent: () => run('pass'),
  args: () => run('import sys\nprint(sys.argv[1:])', { args: ['a b', 'c'] }),
  long: () => run('import time\ntime.sleep(8)\nprint("woke")'),
  pandas: () => run('import pandas as pd\nprint(pd.DataFrame({"a": [1, 2, 3]}).describe().loc["mean", "a"])'),
  language: () => run('PROGRAM-ID. X.', { lang: 'f90' }),
  wrongKey: () => run('print(1)', {}, {}, toolWith('not-the-key')),
  concurrent: () => Promise.all([0, 1, 2, 3].map((n) => run(`print("number", ${n})`))),
  continuity: async () => {
    const first = await run('print("one")');
    const second = await run('print("two")', {}, { session_id: first.artifact.session_id, _injected_files: [] });
    return { first, second };
  },
  toolNode: () => throughToolNode(['print("first")', '1/0', 'print("third")']),
};

scenarios[scenario]()
  .then((result) => process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0)))
  .catch((error) => {
    process.stderr.write(`${error.stack}\n`, () => process.exit(1));
  });
