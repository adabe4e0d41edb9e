// What models do with the two programmatic tools, which run programs that call other tools. Order: that of
// librechat.cjs, and
//   scenarios   names out of `scenarios` below; they are played one after the other
// Prints what each returned, by name, with the calls that the tools got.
'use strict';

const lc = require('./librechat.cjs');

const order = lc.readOrder();
process.env.LIBRECHAT_CODE_BASEURL = order.base;
const agents = lc.clientPackage(order.agents);
const { tool } = lc.packagesIn(order.agents)('@langchain/core/tools');

let calls = [];
const schema = { type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' }, city: { type: 'string' } } };
const make = (name, run) =>
  tool(async (input) => {
    calls.push([name, input]);
    return run(input);
  }, { name, description: name, schema });
const tools = [
  make('add', ({ a, b }) => a + b),
  make('get-weather', ({ city }) => ({ city, t: 20 })),
  make('lambda', () => [1, 2]),
  make('broken', () => { throw new Error('out of order'); }),
];
const injected = {
  toolMap: new Map(tools.map((one) => [one.name, one])),
  toolDefs: tools.map((one) => ({
    name: one.name, description: one.name, parameters: schema, allowed_callers: ['code_execution'],
  })),
};
const python = agents.createProgrammaticToolCallingTool(lc.keyParameters(order));
const bash = agents.createBashProgrammaticToolCallingTool?.(lc.keyParameters(order));

/** One call of a model: what it reads, and what LibreChat keeps. */
async function run(using, code, config = {}, args = {}) {
  calls = [];
  const call = { ...lc.toolCall({ code, ...args }, injected), name: using.name };
  try {
    const message = await using.invoke(call, config);
    return { content: message.content, artifact: message.artifact, calls };
  } catch (error) {
    return { thrown: error.name, message: error.message, calls };
  }
}

const scenarios = {
  parallel: () => run(python, 'a, b = await asyncio.gather(get_weather(city="A"), add(a=1, b=2))\nprint(a["city"], b)'),
  sequence: () => run(python, 'n = 0\nfor _ in range(20):\n    n = await add(a=n, b=1)\nprint(n)'),
  names: () => run(python, 'print(await lambda_tool(), (await get_weather(city="B"))["t"])'),
  caught: () => run(python, 'try:\n    await broken()\nexcept Exception as e:\n    print("caught", e)'),
  uncaught: () => run(python, 'print("before")\nawait broken()'),
  file: () => run(python, 'x = await add(a=1, b=1)\nopen("/mnt/data/x.txt", "w").write(str(x))'),
  pandas: () => run(python, 'df = pd.DataFrame([await get_weather(city="A")])\nprint(df["t"].sum())'),
  noTools: () => run(python, 'print("plain")', {}, { tool_manifest: [] }),
  timeout: () => run(python, 'await add(a=1, b=1)\nwhile True: pass', {}, { timeout: 1000 }),
  bash: () => run(bash, 'w=$(get_weather \'{"city":"C"}\'); echo "$w"; add \'{"a":2,"b":3}\''),
  bashParallel: () => run(bash, '{ add \'{"a":1,"b":1}\' > x; } &\n{ add \'{"a":2,"b":2}\' > y; } &\nwait\ncat x y'),
  bashBroken: () => run(bash, 'broken \'{}\' || echo "failed $?"'),
  abort: async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 1500);
    const began = performance.now();
    const result = await run(python, 'import time\ntime.sleep(30)', { signal: controller.signal });
    return { ...result, seconds: (performance.now() - began) / 1000 };
  },
};

async function play() {
  const results = {};
  for (const name of order.scenarios) results[name] = await scenarios[name]();
  return results;
}

lc.finish(play());
