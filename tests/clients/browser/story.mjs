#!/usr/bin/env node
// Has a page in headless Chromium tell the story over HTTP+SSE, and prints what the page reports: one JSON line per
// step. Exits with 0 when every step went well, with 1 otherwise.
//
// The page comes from http://localhost:PORT, so Weir is another origin to it. Between the two stands a network that is
// cut when the page asks for it.

import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { listen } from '../forward.mjs';
import { Network } from '../network.mjs';

const STORY_MS = 50_000;
const STDERR_BYTES = 20_000;

const { values: args } = parseArgs({
  options: {
    url: { type: 'string' },
    'sse-url': { type: 'string' },
    key: { type: 'string' },
    token: { type: 'string' },
    transport: { type: 'string' },
    revision: { type: 'string' },
    chromium: { type: 'string' },
  },
});
for (const name of ['url', 'sse-url', 'token', 'revision', 'chromium']) {
  if (!args[name]) {
    console.error(`--${name} is required`);
    process.exit(2);
  }
}

// A token of the same shape that nobody owns.
const wrongToken = args.token.slice(0, -1) + (args.token.endsWith('A') ? 'B' : 'A');

// Text without any credential.
function shown(text) {
  const secrets = [args.token, wrongToken, args.key].filter(Boolean);
  return secrets.reduce((kept, secret) => kept.replaceAll(secret, '***'), text);
}

// Prints one step.
const print = (facts) => console.log(shown(JSON.stringify(facts)));

const network = await Network.before(args['sse-url']);
const withToken = (url, token) => `${network.through(url)}?token=${token}`;
const revisions = args.revision.split(',');

// What the page may ask of this program.
let finish;
const finished = new Promise((resolve) => (finish = resolve));
const commands = {
  '/settings': () => ({
    url: withToken(args.url, args.token),
    sseUrl: withToken(args['sse-url'], args.token),
    wrongSseUrl: withToken(args['sse-url'], wrongToken),
    ask: revisions.at(-1),
    wanted: revisions,
  }),
  '/report': (facts) => (print(facts), {}),
  '/part': () => network.part(),
  '/hold': () => network.hold(),
  '/release': () => network.release(),
  '/end': ({ ok }) => (finish(ok), {}),
};

const FILES = {
  '/': ['browser/index.html', 'text/html'],
  '/browser/page.mjs': ['browser/page.mjs', 'text/javascript'],
  '/browser/client.mjs': ['browser/client.mjs', 'text/javascript'],
  '/js/interruptions.mjs': ['js/interruptions.mjs', 'text/javascript'],
  '/js/steps.mjs': ['js/steps.mjs', 'text/javascript'],
  '/js/respondent.mjs': ['js/respondent.mjs', 'text/javascript'],
};

async function body(request) {
  let text = '';
  for await (const piece of request.setEncoding('utf8')) text += piece;
  return JSON.parse(text);
}

const pages = http.createServer(async (request, response) => {
  const command = request.method === 'POST' && commands[request.url];
  const file = request.method === 'GET' && FILES[request.url];
  if (command) {
    const answer = JSON.stringify(await command(await body(request)));
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(answer);
  } else if (file) {
    const content = await readFile(path.join(import.meta.dirname, '..', file[0]));
    response.writeHead(200, { 'Content-Type': file[1] }).end(content);
  } else {
    response.writeHead(404).end();
  }
});
const origin = (await listen(pages)).replace('127.0.0.1', 'localhost');

const profile = await mkdtemp(path.join(tmpdir(), 'weir-chromium-'));
const flags = [
  '--headless',
  ...(process.getuid() === 0 ? ['--no-sandbox'] : []), // Chromium refuses to have one as root
  `--user-data-dir=${profile}`,
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--no-proxy-server',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-default-apps',
  '--disable-extensions',
  '--disable-sync',
  '--enable-logging=stderr', // what the page's console says
  // Nothing but this machine: a browser has much to say to its makers.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
];
// A process group of its own, because a browser is many processes.
const browser = spawn(args.chromium, [...flags, `${origin}/`], { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
let said = '';
browser.stderr.setEncoding('utf8').on('data', (piece) => (said = (said + piece).slice(-STDERR_BYTES)));
const ended = new Promise((resolve) => browser.on('close', resolve).on('error', resolve));

const timer = setTimeout(() => finish(`no end within ${STORY_MS} ms`), STORY_MS);
process.on('SIGTERM', () => finish('ended by SIGTERM'));
process.on('SIGINT', () => finish('ended by SIGINT'));
ended.then((why) => finish(`the browser ended: ${why}`));

const outcome = await finished;
clearTimeout(timer);
if (outcome !== true) {
  if (outcome) print({ step: 'browser', ok: false, error: outcome });
  // A machine without a desktop has no D-Bus, which Chromium deplores at length.
  console.error(shown(said).replaceAll(/.*dbus.*\n/g, ''));
}
if (browser.pid && browser.exitCode === null && browser.signalCode === null) process.kill(-browser.pid, 'SIGKILL');
await ended;
await rm(profile, { recursive: true, force: true, maxRetries: 3 });
process.exit(outcome === true ? 0 : 1);
