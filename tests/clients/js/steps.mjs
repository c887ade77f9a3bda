// The steps of the story, for every client that is written in JavaScript. Runs in Node and in a browser.

import { Respondent } from './respondent.mjs';

const STEP_MS = 15_000;
const MAX_PAGES = 50;
const NEEDED_TOOLS = ['dns_resolve', 'get_status', 'slow_count', 'slow_count_cancelled'];
const INVALID_PARAMS = -32602;
const WATCHED = 'test://watched-resource';

class TimedOut extends Error {}

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new TimedOut(`no answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Runs one step under its time limit and hands its line to `print`; what the step returns stands in it as facts. False
// when it failed.
export async function step(print, name, action) {
  const started = performance.now();
  const line = (ok, facts) => print({ step: name, ok, ms: Math.round(performance.now() - started), ...facts });
  try {
    line(true, (await within(STEP_MS, action())) ?? {});
    return true;
  } catch (error) {
    line(false, { error: `${error?.name}: ${error?.message}`.slice(0, 500) });
    return false;
  }
}

export function require(condition, message) {
  if (!condition) throw new Error(message);
}

export const textOf = (result) => result.content.map((item) => item.text ?? '').join('\n');

async function everyPage(fetch, field) {
  const entries = [];
  let cursor;
  for (let page = 1; page <= MAX_PAGES; page++) {
    const result = await fetch(cursor ? { cursor } : undefined);
    entries.push(...result[field]);
    cursor = result.nextCursor;
    if (!cursor) return { entries, pages: page };
  }
  throw new Error(`${field} did not end after ${MAX_PAGES} pages`);
}

async function cancelledCalls(client) {
  return Number(textOf(await client.callTool({ name: 'slow_count_cancelled', arguments: {} })));
}

// The text of a call that is expected to go well.
export async function answer(client, name, values = {}) {
  const result = await client.callTool({ name, arguments: values });
  require(!result.isError, `isError: ${textOf(result)}`);
  return textOf(result);
}

// The form that the server sends, filled in or declined.
async function elicit({ client, respondent, canElicit }, accepts) {
  const message = `Who are you? (step ${accepts ? 'accepted' : 'declined'})`;
  respondent.accepts = accepts;
  if (!canElicit) {
    const result = await client.callTool({ name: 'test_elicitation', arguments: { message } });
    require(result.isError, `not isError: ${textOf(result)}`);
    require(textOf(result).includes('elicitation'), `elicitation is not named as missing: ${textOf(result)}`);
    return { skipped: "this SDK has no elicitation; the tool's error says so", text: textOf(result).slice(0, 120) };
  }
  const text = await answer(client, 'test_elicitation', { message });
  require(respondent.asked.at(-1) === message, `the client was asked ${respondent.asked}`);
  const found = text.match(/^User response: action=(\w+), content=(.*)$/);
  require(found, `the tool made of the answer: ${text}`);
  const { username, email } = accepts ? Respondent.fields : {};
  const content = JSON.parse(found[2]);
  require(found[1] === (accepts ? 'accept' : 'decline'), `the tool made of the answer: ${text}`);
  require(content.username === username && content.email === email, `the tool made of the answer: ${text}`);
  return undefined;
}

// The steps, in the order in which they are told. Each takes the connected peer (peers.mjs, browser/page.mjs).
export const steps = {
  async revision({ revision, wanted }) {
    require(!wanted.length || wanted.includes(revision), `negotiated ${revision}, wanted one of ${wanted}`);
    return { revision };
  },
  async list_tools({ client }) {
    const { entries, pages } = await everyPage((params) => client.listTools(params), 'tools');
    const names = entries.map((tool) => tool.name);
    const missing = NEEDED_TOOLS.filter((name) => !names.includes(name));
    require(!missing.length, `missing ${missing} in ${names}`);
    require(new Set(names).size === names.length, `a tool is listed twice: ${names}`);
    return { tools: names.length, pages };
  },
  async list_resources({ client }) {
    const { entries } = await everyPage((params) => client.listResources(params), 'resources');
    const uris = entries.map((resource) => resource.uri);
    require(uris.includes('config://account/settings'), `no config://account/settings in ${uris}`);
    return { resources: uris.length };
  },
  async list_templates({ client }) {
    const { entries } = await everyPage((params) => client.listResourceTemplates(params), 'resourceTemplates');
    const uris = entries.map((template) => template.uriTemplate);
    require(uris.includes('logs://calls/{date}'), `no logs://calls/{date} in ${uris}`);
    return { templates: uris.length };
  },
  async read_settings({ client }) {
    const result = await client.readResource({ uri: 'config://account/settings' });
    require(result.contents[0].text, 'the settings are empty');
    return { bytes: result.contents[0].text.length };
  },
  async get_prompt({ client }) {
    const { entries } = await everyPage((params) => client.listPrompts(params), 'prompts');
    require(entries.length, 'no prompt is listed');
    const needed = (entries[0].arguments ?? []).filter((argument) => argument.required);
    const values = Object.fromEntries(needed.map((argument) => [argument.name, 'host.test.weir']));
    const result = await client.getPrompt({ name: entries[0].name, arguments: values });
    require(result.messages.length, 'the prompt has no messages');
    return { prompt: entries[0].name, messages: result.messages.length };
  },
  async call_tool({ client }) {
    const result = await client.callTool({ name: 'dns_resolve', arguments: { name: 'host.test.weir', type: 'A' } });
    require(!result.isError, `isError: ${textOf(result)}`);
    require(textOf(result).includes('192.0.2.7'), `no 192.0.2.7 in: ${textOf(result)}`);
  },
  async business_error({ client }) {
    const asked = { name: 'missing.test.weir', type: 'A' };
    const result = await client.callTool({ name: 'dns_resolve', arguments: asked });
    require(result.isError, `not isError: ${textOf(result)}`);
    require(textOf(result), 'isError without a text');
    return { text: textOf(result).slice(0, 120) };
  },
  async wrong_argument({ client }) {
    const result = await client.callTool({ name: 'dns_resolve', arguments: { name: 'host.test.weir', type: 7 } });
    require(result.isError, `not isError: ${textOf(result)}`);
    require(/\btype\b/.test(textOf(result)), `argument \`type\` not named in: ${textOf(result)}`);
    return { text: textOf(result).slice(0, 120) };
  },
  async progress({ call, progressOnWire }) {
    progressOnWire.length = 0;
    const heard = [];
    const options = { onprogress: (one) => heard.push(one.progress) };
    const result = await call('slow_count', { steps: 5, delay_ms: 50 }, options);
    require(!result.isError, `isError: ${textOf(result)}`);
    const sent = progressOnWire.map((one) => `${one.progress}/${one.total}`).join();
    require(sent === '1/5,2/5,3/5,4/5,5/5', `progress on the wire was ${sent}`);
    // SDK 1.x drops a progress notification that arrives in one piece with the result, so the last may be missing.
    require('1,2,3,4,5'.startsWith(heard.join()) && heard.length >= 4, `the callback heard ${heard}`);
    return { heard: heard.length };
  },
  async cancellation({ client, call }) {
    const before = await cancelledCalls(client);
    const started = performance.now();
    const abort = new AbortController();
    const options = { signal: abort.signal, onprogress: () => abort.abort('the story cancels') };
    const outcome = await call('slow_count', { steps: 200, delay_ms: 100 }, options).then(
      () => 'a result',
      () => 'cancelled',
    );
    require(outcome === 'cancelled' && abort.signal.aborted, `the call ended with ${outcome}`);
    let after = before;
    while (after <= before && performance.now() - started < STEP_MS - 5000) after = await cancelledCalls(client);
    require(after === before + 1, `${before} cancelled calls before, ${after} after`);
    return { before, after };
  },
  async unknown_tool({ client }) {
    const result = await client.callTool({ name: 'no_such_tool', arguments: {} }).catch((error) => ({ error }));
    require(result.error, `a result instead of a protocol error: ${JSON.stringify(result)}`);
    require(result.error.code === INVALID_PARAMS, `code ${result.error.code}, wanted ${INVALID_PARAMS}`);
    return { code: result.error.code, message: result.error.message };
  },
  async subscription({ client, watching, notices }) {
    const read = async () => (await client.readResource({ uri: WATCHED })).contents[0].text;
    const before = await read();
    await watching(WATCHED, async () => {
      await answer(client, 'test_trigger_resource_change');
      const { method, uri } = await notices.next();
      require(method === 'notifications/resources/updated' && uri === WATCHED, `heard ${method} ${uri}`);
    });
    const after = await read();
    require(after !== before, `before and after the change: ${after}`);
    return { uri: WATCHED };
  },
  // Nothing is heard of a resource any more. A change of the tools, told later on the same stream, shows it.
  async unsubscribed({ client, isModern, notices }) {
    if (isModern) return { skipped: '2026-07-28 has no unsubscribe: its subscription ended with its stream' };
    await answer(client, 'test_trigger_resource_change');
    await answer(client, 'test_trigger_tool_change');
    const { method } = await notices.next();
    require(method === 'notifications/tools/list_changed', `heard ${method} after unsubscribing`);
    return undefined;
  },
  async sampling({ client, respondent }) {
    const prompt = 'What is the capital of France?';
    const text = await answer(client, 'test_sampling', { prompt });
    require(respondent.asked.at(-1) === prompt, `the client was asked ${respondent.asked}`);
    require(text === `LLM response: ${Respondent.sample}`, `the tool made of the answer: ${text}`);
  },
  async roots({ client }) {
    const text = await answer(client, 'test_input_required_result_list_roots');
    require(text.startsWith('1 roots:') && text.includes(Respondent.root), `the tool made of the answer: ${text}`);
  },
  elicitation_accepted: (peer) => elicit(peer, true),
  elicitation_declined: (peer) => elicit(peer, false),
  // One question after the other, then three at once.
  async several_questions({ client, respondent, canElicit }) {
    if (!canElicit) return { skipped: 'this SDK has no elicitation' };
    respondent.accepts = true;
    let text = await answer(client, 'test_input_required_result_multi_round');
    require(text === 'Ada likes blue.', `the tool made of two answers: ${text}`);
    text = await answer(client, 'test_input_required_result_multiple_inputs');
    require(text === `${Respondent.sample} Ada has 1 roots.`, `the tool made of three answers: ${text}`);
    return undefined;
  },
};
