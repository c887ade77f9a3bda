// What differs between the versions of the TypeScript SDK: the packages, the constructors, where headers go, how
// questions of the server are answered and resources watched.

import { fileURLToPath } from 'node:url';
import { Notices, Respondent } from './respondent.mjs';

const CLIENT_INFO = { name: 'weir-story', version: '1.0.0' };

// SDK 1.9.0 sends `requestInit` headers with POSTs only; the GET of its EventSource needs them from a fetch.
const HEADERLESS_GET = new Set(['1.9.0']);

const MODERN = '2026-07-28';

// What 1.x knows messages by. v2 takes the name of the method.
const SCHEMAS = {
  'elicitation/create': 'ElicitRequestSchema',
  'sampling/createMessage': 'CreateMessageRequestSchema',
  'roots/list': 'ListRootsRequestSchema',
  'notifications/resources/updated': 'ResourceUpdatedNotificationSchema',
  'notifications/tools/list_changed': 'ToolListChangedNotificationSchema',
};

// Versions of 1.x are installed side by side under aliases (see package.json); anything else is v2.
async function load(sdk) {
  if (!sdk.startsWith('1.')) {
    const v2 = await import('@modelcontextprotocol/client');
    const { SSEClientTransport: Sse, StreamableHTTPClientTransport: Streamable } = v2;
    const { StdioClientTransport: Stdio } = await import('@modelcontextprotocol/client/stdio');
    return { Client: v2.Client, Sse, Streamable, Stdio, named: (method) => method, v2: true };
  }
  const { Client } = await import(`sdk-${sdk}/client/index.js`);
  const { SSEClientTransport: Sse } = await import(`sdk-${sdk}/client/sse.js`);
  const streamable = await import(`sdk-${sdk}/client/streamableHttp.js`).catch(() => ({}));
  const { StdioClientTransport: Stdio } = await import(`sdk-${sdk}/client/stdio.js`);
  const types = await import(`sdk-${sdk}/types.js`);
  const named = (method) => types[SCHEMAS[method]];
  return { Client, Sse, Streamable: streamable.StreamableHTTPClientTransport, Stdio, named, v2: false };
}

// A URL token replaces every header.
export function endpoint(args) {
  const url = new URL(args.transport === 'sse' ? args['sse-url'] : args.url);
  if (args.token) {
    url.searchParams.set('token', args.token);
    return { url, headers: undefined };
  }
  return { url, headers: { Authorization: `Bearer ${args.key}` } };
}

// The steps that this client cannot do on this transport, and why. `interruptions` stands for all that are told over a
// bad network.
export function limits({ sdk, transport, token, bridge }) {
  if (transport === 'modern' || transport === 'pinned') {
    const interruptions = '2026-07-28 has no resumption: a call whose stream is cut is sent again';
    const cancellation =
      'mcp-remote posts notifications/cancelled and leaves the stream of the call open, whose close is what cancels';
    return bridge ? { interruptions, cancellation } : { interruptions };
  }
  // The fetch that an SDK gives its EventSource replaces the headers of the EventSource. The one of ours does not.
  if (transport === 'sse' && (token || !HEADERLESS_GET.has(sdk))) {
    const sdkDrops = 'the EventSource of this SDK comes back without Last-Event-ID';
    const bridgeDrops = 'mcp-remote gives up the calls that wait when its SSE stream drops';
    return { interruptions: bridge ? bridgeDrops : sdkDrops };
  }
  if (['1.12.3', '1.13.0'].includes(sdk)) {
    return { notices_in_the_gap: 'this SDK opens its GET stream again only if an event with an id has come on it' };
  }
  return {};
}

// npm mcp-remote, which speaks stdio to the client and HTTP to Weir. The key is in its environment, not among its
// arguments.
function bridge(parts, args) {
  const { url, headers } = endpoint(args);
  const program = fileURLToPath(new URL('../node_modules/mcp-remote/dist/proxy.js', import.meta.url));
  const speak = args.transport === 'sse' ? 'sse-only' : 'http-only';
  const credential = headers ? ['--header', 'Authorization:${WEIR_STORY_CREDENTIAL}'] : [];
  return new parts.Stdio({
    command: process.execPath,
    args: [program, url.href, '--transport', speak, ...credential],
    env: headers ? { WEIR_STORY_CREDENTIAL: headers.Authorization } : {},
  });
}

function makeTransport(parts, args) {
  if (args.bridge) return bridge(parts, args);
  const { url, headers } = endpoint(args);
  const options = headers ? { requestInit: { headers } } : {};
  if (args.transport !== 'sse') return new parts.Streamable(url, options);
  if (headers && HEADERLESS_GET.has(args.sdk)) {
    options.eventSourceInit = {
      fetch: (target, init) => fetch(target, { ...init, headers: { ...init.headers, ...headers } }),
    };
  }
  return new parts.Sse(url, options);
}

const NEGOTIATION = { modern: { mode: 'auto' }, sse: { mode: 'auto' }, pinned: { mode: { pin: MODERN } } };

// Sees every message that arrives, however often and whenever the SDK sets its own handler.
function tap(transport, see) {
  let handler;
  Object.defineProperty(transport, 'onmessage', {
    get: () => handler && ((message, ...rest) => (see(message), handler.call(transport, message, ...rest))),
    set: (value) => (handler = value),
  });
}

// Watches a resource while `during` runs. v2 hands the notices of a modern stream to the handlers of the legacy ones.
async function watching(client, revision, uri, during) {
  if (revision === MODERN) {
    const subscription = await client.listen({ resourceSubscriptions: [uri] });
    await during();
    await subscription.close();
    return;
  }
  await client.subscribeResource({ uri });
  await during();
  await client.unsubscribeResource({ uri });
}

// Connects and returns the client, the negotiated revision, who answers and what is heard, a call with options, the
// progress seen on the wire and an orderly close.
export async function connect(args) {
  const parts = await load(args.sdk);
  const negotiation = NEGOTIATION[args.transport];
  if (!parts.v2 && ['modern', 'pinned'].includes(args.transport)) {
    throw new Error(`SDK ${args.sdk} does not speak ${args.transport}`);
  }
  const transport = makeTransport(parts, args);
  const progressOnWire = [];
  let initialized;
  tap(transport, (message) => {
    initialized ??= message.result?.protocolVersion;
    if (message.method === 'notifications/progress') progressOnWire.push(message.params);
  });
  // Elicitation came with revision 2025-06-18; 1.9.0 and 1.12.3 know nothing of it.
  const canElicit = Boolean(parts.named('elicitation/create'));
  const client = new parts.Client(CLIENT_INFO, {
    capabilities: { sampling: {}, roots: {}, ...(canElicit ? { elicitation: { form: {} } } : {}) },
    ...(parts.v2 ? { versionNegotiation: negotiation } : {}),
  });
  const respondent = new Respondent();
  for (const [method, answer] of Object.entries(respondent.answers)) {
    if (parts.named(method)) client.setRequestHandler(parts.named(method), async ({ params }) => answer(params));
  }
  const notices = new Notices();
  for (const method of Notices.heard) {
    client.setNotificationHandler(parts.named(method), ({ params }) => notices.hear({ method, params }));
  }
  await client.connect(transport);
  // 1.x does not tell which revision it negotiated.
  const revision = client.getNegotiatedProtocolVersion?.() ?? initialized;
  return {
    client,
    progressOnWire,
    revision,
    isModern: revision === MODERN,
    respondent,
    canElicit,
    cannot: limits(args),
    notices,
    watching: (uri, during) => watching(client, revision, uri, during),
    call: (name, values, options) => {
      const params = { name, arguments: values };
      return parts.v2 ? client.callTool(params, options) : client.callTool(params, undefined, options);
    },
    close: async () => {
      await transport.terminateSession?.();
      await client.close();
    },
  };
}
