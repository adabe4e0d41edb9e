// What models do with execute_code, and what becomes of it. Order: that of librechat.cjs, and
//   scenarios   names out of `scenarios` below; they are played one after the other
// Prints what each returned, by name.
'use strict';

const lc = require('./librechat.cjs');

const order = lc.readOrder();
process.env.LIBRECHAT_CODE_BASEURL = order.base;
const agents = lc.clientPackage(order.agents);
const toolWith = (key) => agents.createCodeExecutionTool({ user_id: lc.USER, ...lc.keyParameters(order, key) });
const tool = toolWith(order.key);

/** One call: the text the model reads, and what LibreChat keeps. A thrown error is a result too. */
async function run(code, extra = {}, injected = {}, using = tool) {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  try {
    const message = await using.invoke(lc.toolCall({ lang: 'py', code, ...extra }, injected));
    return { content: message.content, artifact: message.artifact, status: message.status, seconds: seconds() };
  } catch (error) {
    return { thrown: error.name, message: error.message, seconds: seconds() };
  }
}

/** Calls through the ToolNode LibreChat uses, which feeds the session of one call into the next. */
async function throughToolNode(programs) {
  const { AIMessage } = lc.packagesIn(order.agents)('@langchain/core/messages');
  const sessions = new Map();
  const node = new agents.ToolNode({ tools: [tool], toolMap: new Map([[tool.name, tool]]), sessions, trace: false });
  const contents = [];
  for (const [index, code] of programs.entries()) {
    const call = { id: `c${index}`, name: tool.name, type: 'tool_call', args: { lang: 'py', code } };
    const message = new AIMessage({ content: '', tool_calls: [call] });
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

async function play() {
  const results = {};
  for (const name of order.scenarios) results[name] = await scenarios[name]();
  return results;
}

lc.finish(play());
