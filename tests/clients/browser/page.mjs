// The story as a page tells it: the steps that every client tells, and what becomes of an EventSource whose connection
// is cut. Settings come from story.mjs, which also cuts; every line goes back to it.

import { interruptions } from '../js/interruptions.mjs';
import { Notices, Respondent } from '../js/respondent.mjs';
import { answer, require, step, steps } from '../js/steps.mjs';
import { Client } from './client.mjs';

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
    cannot: {},
    notices,
    progressOnWire: client.progressOnWire,
    network: {
      hold: () => tellServer('/hold'),
      release: () => tellServer('/release'),
      part: () => tellServer('/part'),
    },
    alone,
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

// What only an EventSource can show.
const ofBrowsers = {
  // The connection is cut between two calls. What is posted meanwhile is taken, and what it leads to, a question and a
  // result, comes when the browser has connected again, which it does by itself.
  async reconnection({ client, network, respondent }) {
    const lost = client.next('error');
    const opened = client.next('open');
    await network.hold();
    await lost;
    require(client.readyState === EventSource.CONNECTING, `the stream is in state ${client.readyState}`);
    const started = performance.now();
    const message = 'Are you there?';
    const told = answer(client, 'test_elicitation', { message });
    await network.release();
    await opened;
    const away = Math.round(performance.now() - started);
    require((await told).startsWith('User response: action=accept'), `the tool made of the answer: ${await told}`);
    require(respondent.asked.at(-1) === message, `the client was asked ${respondent.asked}`);
    return { away };
  },
  async one_session({ client }) {
    require(client.endpoints.size === 1, 'the server opened another session');
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
  for (const [name, action] of Object.entries({ ...steps, ...interruptions, ...ofBrowsers })) {
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
