// What differs between the versions of the TypeScript SDK: the packages, the constructors, where headers go.

const CLIENT_INFO = { name: 'weir-story', version: '1.0.0' };

// SDK 1.9.0 sends `requestInit` headers with POSTs only; the GET of its EventSource needs them from a fetch.
const HEADERLESS_GET = new Set(['1.9.0']);

// Versions of 1.x are installed side by side under aliases (see package.json); anything else is v2.
async function load(sdk) {
  if (!sdk.startsWith('1.')) {
    const v2 = await import('@modelcontextprotocol/client');
    return { Client: v2.Client, Sse: v2.SSEClientTransport, Streamable: v2.StreamableHTTPClientTransport, v2: true };
  }
  const { Client } = await import(`sdk-${sdk}/client/index.js`);
  const { SSEClientTransport: Sse } = await import(`sdk-${sdk}/client/sse.js`);
  const streamable = await import(`sdk-${sdk}/client/streamableHttp.js`).catch(() => ({}));
  return { Client, Sse, Streamable: streamable.StreamableHTTPClientTransport, v2: false };
}

// A URL token replaces every header.
function endpoint(args) {
  const url = new URL(args.transport === 'sse' ? args['sse-url'] : args.url);
  if (args.token) {
    url.searchParams.set('token', args.token);
    return { url, headers: undefined };
  }
  return { url, headers: { Authorization: `Bearer ${args.key}` } };
}

function makeTransport(parts, args) {
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

const NEGOTIATION = { modern: { mode: 'auto' }, sse: { mode: 'auto' }, pinned: { mode: { pin: '2026-07-28' } } };

// Sees every message that arrives, however often and whenever the SDK sets its own handler.
function tap(transport, see) {
  let handler;
  Object.defineProperty(transport, 'onmessage', {
    get: () => handler && ((message, ...rest) => (see(message), handler.call(transport, message, ...rest))),
    set: (value) => (handler = value),
  });
}

// Connects and returns the client, the negotiated revision, a call with options, the progress seen on the wire
// and an orderly close.
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
  const client = new parts.Client(CLIENT_INFO, {
    capabilities: {},
    ...(parts.v2 ? { versionNegotiation: negotiation } : {}),
  });
  await client.connect(transport);
  return {
    client,
    progressOnWire,
    // 1.x does not tell which revision it negotiated.
    revision: client.getNegotiatedProtocolVersion?.() ?? initialized,
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
