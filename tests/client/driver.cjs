// What models do with execute_code, and what becomes of it. Order: that of librechat.cjs, and
//   scenarios   names out of `scenarios` below; they are played one after the other
//   absent      a language that no pool serves
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

/** What the model reads when a call went through the ToolNode: errors are messages there. */
const read = ({ content, status }) => ({ content, status });

/** One call after the other through one ToolNode. */
async function throughToolNode(programs) {
  const sessions = new Map();
  const call = lc.toolNode(order, agents, tool, sessions);
  const contents = [];
  for (const code of programs) contents.push((await call({ lang: 'py', code }))[0].content);
  return { contents, session: sessions.get('execute_code')?.session_id ?? null };
}

/** Two calls of one message at the same time, and then one that uses the files of both. */
async function parallelFiles() {
  const call = lc.toolNode(order, agents, tool);
  const write = (name) => ({ lang: 'py', code: `open("${name}", "w").write("this is ${name}")\nprint("made")` });
  await call(write('left.txt'), write('right.txt'));
  const code = 'for name in ("left", "right"):\n    print(open(name + ".txt").read())';
  return (await call({ lang: 'py', code }))[0].content;
}

const scenarios = {
  hello: () => run('print("hello")'),
  error: () => run('print("before", flush=True)\n1/0'),
  silent: () => run('pass'),
  args: () => run('import sys\nprint(sys.argv[1:])', { args: ['a b', 'c'] }),
  long: () => run('import time\ntime.sleep(8)\nprint("woke")'),
  pandas: () => run('import pandas as pd\nprint(pd.DataFrame({"a": [1, 2, 3]}).describe().loc["mean", "a"])'),
  language: () => run('1', { lang: order.absent }),
  wrongKey: () => run('print(1)', {}, {}, toolWith('not-the-key')),
  concurrent: () => Promise.all([0, 1, 2, 3].map((n) => run(`print("number", ${n})`))),
  continuity: async () => {
    const first = await run('print("one")');
    const second = await run('print("two")', {}, { session_id: first.artifact.session_id, _injected_files: [] });
    return { first, second };
  },
  signal: () => run('import os, signal\nprint("before", flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)'),
  manyLines: () => run('for n in range(40000):\n    print(f"line {n:05}")'),
  toolNode: () => throughToolNode(['print("first")', '1/0', 'print("third")']),
  toolNodeRefused: async () => read((await lc.toolNode(order, agents, toolWith('not-the-key'))({ lang: 'py', code: '1' }))[0]),
  toolNodeUnsupported: async () => read((await lc.toolNode(order, agents, tool)({ lang: order.absent, code: '1' }))[0]),
  toolNodeEmpty: async () => read((await lc.toolNode(order, agents, tool)({ lang: 'py', code: '' }))[0]),
  toolNodeParallel: parallelFiles,
};

async function play() {
  const results = {};
  for (const name of order.scenarios) results[name] = await scenarios[name]();
  return results;
}

lc.finish(play());
