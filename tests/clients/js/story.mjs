#!/usr/bin/env node
// One story told by a real TypeScript MCP client: connect, list, read, call, fail, see progress, cancel, answer what
// the server asks, watch a resource, close.
//
// `--sdk` decides which client this is; `peers.mjs` hides what differs between versions. With `--bridge` it speaks
// stdio to npm mcp-remote, which speaks the transport. Prints one JSON line per step and exits with 0 when every step
// went well, with 1 otherwise. What a client cannot do is told by a member `skipped` with the reason.

import { parseArgs } from 'node:util';
import { Network } from '../network.mjs';
import { interruptions } from './interruptions.mjs';
import { connect, endpoint, limits } from './peers.mjs';
import { require, step, steps } from './steps.mjs';

const { values: args } = parseArgs({
  options: {
    url: { type: 'string' },
    'sse-url': { type: 'string' },
    key: { type: 'string' },
    token: { type: 'string', default: '' },
    transport: { type: 'string' },
    revision: { type: 'string', default: '' },
    sdk: { type: 'string' },
    bridge: { type: 'boolean', default: false },
  },
});
for (const name of ['url', 'sse-url', 'key', 'transport', 'sdk']) {
  if (!args[name]) {
    console.error(`--${name} is required (transport: streamable, sse, modern or pinned)`);
    process.exit(2);
  }
}

// A key of the same shape that nobody owns.
const otherKey = (key) => key && key.slice(0, -1) + (key.endsWith('A') ? 'B' : 'A');
const secrets = [args.key, args.token, otherKey(args.key), otherKey(args.token)].filter(Boolean);

// Prints one step; never prints a credential.
function print(facts) {
  let text = JSON.stringify(facts);
  for (const secret of secrets) text = text.replaceAll(secret, '***');
  console.log(text);
}

// With a wrong credential the connection (or, where connecting is silent, the first request) fails, soon.
async function refused() {
  const wrong = { ...args, key: otherKey(args.key), token: otherKey(args.token) };
  let peer;
  try {
    peer = await connect(wrong);
    await peer.client.listTools();
  } catch (error) {
    const told = `${error?.message} ${error?.code} ${error?.status ?? error?.data?.status}`;
    // The bridge looks for a login that is not served, then ends: all that its client sees is that it is gone.
    const expected = args.bridge ? /Connection closed/ : /\b401\b/;
    require(expected.test(told), `refused with ${error?.name}: ${told}`);
    return { error: `${error?.name}: ${error?.message}`.slice(0, 300) };
  } finally {
    await peer?.client.close();
  }
  throw new Error('connected with a wrong credential');
}

// One request of its own, beside the client: up to 2025-11-25 a single call needs no session.
async function alone(method, params) {
  const { url, headers } = endpoint({ ...args, transport: 'streamable' });
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', ...headers },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
  const { result, error } = await response.json();
  require(result, `${method} was answered with ${response.status} ${JSON.stringify(error)}`);
  return result;
}

// A connection of its own, the steps that are told on it, and its close.
async function chapter(connectAs, chapterSteps, chapterArgs) {
  let peer;
  const connected = await step(print, connectAs, async () => {
    peer = await connect(chapterArgs);
    return { sdk: `typescript ${args.sdk}`, ...(args.bridge ? { behind: 'mcp-remote' } : {}) };
  });
  if (!connected) return false;
  Object.assign(peer, { wanted: args.revision.split(',').filter(Boolean), network: chapterArgs.network, alone });
  for (const [name, action] of Object.entries(chapterSteps)) {
    const skipped = peer.cannot[name];
    if (!(await step(print, name, skipped ? async () => ({ skipped }) : () => action(peer)))) return false;
  }
  return step(print, 'close', () => peer.close());
}

// The chapter of the bad network.
async function interrupted() {
  const { interruptions: skipped } = limits(args);
  if (skipped) return step(print, 'interruptions', async () => ({ skipped }));
  const network = await Network.before(args.url);
  const behind = { ...args, url: network.through(args.url), 'sse-url': network.through(args['sse-url']), network };
  return chapter('connect_badly', interruptions, behind);
}

async function tell() {
  const told = (await chapter('connect', steps, args)) && (await interrupted());
  return told && (await step(print, 'wrong_key', refused));
}

// Leave at once: a transport that still holds a stream open must not turn a finished story into a hang.
process.exit((await tell()) ? 0 : 1);
