// The story as a page tells it: the steps that every client tells, and what becomes of an EventSource whose connection
// is cut. Settings come from story.mjs, which also cuts; every line goes back to it.

import { Notices, Respondent } from '../js/respondent.mjs';
import { answer, require, step, steps, textOf } from '../js/steps.mjs';
import { Client } from './client.mjs';

const WATCHED = 'test://watched-resource';
const COUNT = { steps: 5, delay_ms: 50 };

async function tellServer(path, facts = {}) {
  const response = await fetch(path, { method: 'POST', body: JSON.stringify(facts) });
  require(response.ok, `${path} was answered with ${response.status}`);
  return response.json();
}

const settings = await tellServer('/settings');

let reports = Promise.resolve();
const print = (facts) => (reports = reports.then(() => tellServer('/report', facts)));
for (const type of ['error', 'unhandledrejection']) {
  addEventListener(type, (event) => print({ step: 'page', ok: false, error: String(event.reason ?? event.message) }));
}

async function connect() {
  const respondent = new Respondent();
  const notices = new Notices();
  const client = new Client(settings.sseUrl, respondent.answers, (message) => {
    if (Notices.heard.includes(message.method)) notices.hear(message);
  });
  const revision = await client.connect(settings.ask);
  return {
    client,
    revision,
    wanted: settings.wanted,
    isModern: false,
    respondent,
    canElicit: true,
    notices,
    progressOnWire: client.progressOnWire,
    watching: async (uri, during) => {
      await client.subscribeResource({ uri });
      await during();
      await client.unsubscribeResource({ uri });
    },
    call: (name, values, options) => client.callTool({ name, arguments: values }, options),
  };
}

// One request of its own, beside the stream: 2025-03-26 needs no session for a single call.
async function alone(method, params) {
  const response = await fetch(settings.url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
  const { result, error } = await response.json();
  require(result, `${method} was answered with ${response.status} ${JSON.stringify(error)}`);
  return result;
}

const interruptions = {
  // The connection is cut between two calls: the browser connects again, and the session goes on.
  async reconnection({ client }) {
    const lost = client.next('error');
    const opened = client.next('open');
    require((await tellServer('/cut')).cut === 1, 'there was not one stream to cut');
    await lost;
    require(client.readyState === EventSource.CONNECTING, `the stream is in state ${client.readyState}`);
    const started = performance.now();
    await opened;
    const away = Math.round(performance.now() - started);
    const text = await answer(client, 'test_simple_text');
    require(client.endpoints.size === 1, 'the server opened another session');
    return { away, text };
  },
  // The connection is cut in the middle of a call and stays cut until everything has happened: progress, a result, the
  // answer to a call made meanwhile, and a notification. All of it arrives, in order and once.
  async answers_in_the_gap({ client, call, notices }) {
    await client.subscribeResource({ uri: WATCHED });
    client.progressOnWire.length = 0;
    let begun;
    const firstProgress = new Promise((resolve) => (begun = resolve));
    const counted = call('slow_count', COUNT, { onprogress: begun });
    await firstProgress;
    const opened = client.next('open');
    require((await tellServer('/hold')).cut === 1, 'there was not one stream to cut');
    const before = await alone('resources/read', { uri: WATCHED });
    const changed = client.callTool({ name: 'test_trigger_resource_change', arguments: {} });
    let after = before;
    while (after.contents[0].text === before.contents[0].text) after = await alone('resources/read', { uri: WATCHED });
    // A count that began later and takes as long has ended: so has the one whose stream was cut.
    await alone('tools/call', { name: 'slow_count', arguments: COUNT });
    await tellServer('/release');
    await opened;
    require(textOf(await counted) === 'Counted to 5.', `the cut call said ${textOf(await counted)}`);
    require(!(await changed).isError, `the call made meanwhile said ${textOf(await changed)}`);
    const { method, uri } = await notices.next();
    require(method === 'notifications/resources/updated' && uri === WATCHED, `heard ${method} ${uri}`);
    const progress = client.progressOnWire.map((one) => one.progress).join();
    require(progress === '1,2,3,4,5', `progress was ${progress}`);
    await client.unsubscribeResource({ uri: WATCHED });
    require(client.endpoints.size === 1, 'the server opened another session');
    return { progress };
  },
  async nothing_twice({ client }) {
    require(!client.strays.length, `came twice or unasked: ${JSON.stringify(client.strays)}`);
  },
};

// With a wrong token the stream is refused for good: the browser does not try again.
async function refused() {
  const { status } = await fetch(settings.wrongSseUrl);
  require(status === 401, `GET was answered with ${status}`);
  const source = new EventSource(settings.wrongSseUrl);
  await new Promise((resolve, reject) => {
    source.onerror = resolve;
    source.onopen = () => reject(new Error('connected with a wrong token'));
  });
  require(source.readyState === EventSource.CLOSED, 'the browser goes on trying');
  return { status };
}

async function tell() {
  let peer;
  const connected = await step(print, 'connect', async () => {
    peer = await connect();
    return { browser: navigator.userAgent };
  });
  if (!connected) return false;
  for (const [name, action] of Object.entries({ ...steps, ...interruptions })) {
    if (!(await step(print, name, () => action(peer)))) return false;
  }
  const closed = await step(print, 'close', async () => {
    peer.client.close();
    require(peer.client.readyState === EventSource.CLOSED, `the stream is in state ${peer.client.readyState}`);
  });
  return closed && (await step(print, 'wrong_key', refused));
}

const ok = await tell();
await reports;
await tellServer('/end', { ok });
