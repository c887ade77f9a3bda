// A small MCP client for HTTP+SSE, as a page without any library would have it: `EventSource` to listen, `fetch` to
// post. It answers to the same names as the clients of the SDKs.

const CLIENT_INFO = { name: 'weir-story', version: '1.0.0' };

class ProtocolError extends Error {
  constructor({ code, message }) {
    super(message);
    this.code = code;
  }
}

export class Client {
  #url;
  #answers;
  #hear;
  #source;
  #next = 1;
  #waiting = new Map();
  // Every address for posting that the server gave. Another one than the first is another session.
  endpoints = new Set();
  // What came twice or unasked: nothing, if all is well.
  strays = [];
  // Progress as it came in.
  progressOnWire = [];

  // `answers`: what to say to requests of the server, by method. `hear`: takes every notification.
  constructor(url, answers, hear) {
    this.#url = url;
    this.#answers = answers;
    this.#hear = hear;
  }

  async connect(protocolVersion) {
    this.#source = new EventSource(this.#url);
    this.#source.addEventListener('endpoint', ({ data }) => this.endpoints.add(new URL(data, this.#url).href));
    this.#source.addEventListener('message', ({ data }) => this.#take(JSON.parse(data)));
    await new Promise((resolve, reject) => {
      this.#source.addEventListener('endpoint', resolve, { once: true });
      this.#source.addEventListener('error', () => reject(new Error('the stream did not open')), { once: true });
    });
    const capabilities = { sampling: {}, roots: {}, elicitation: { form: {} } };
    const started = await this.request('initialize', { protocolVersion, capabilities, clientInfo: CLIENT_INFO });
    await this.notify('notifications/initialized');
    return started.protocolVersion;
  }

  // Resolves when the stream next says this: `open` or `error`.
  next(type) {
    return new Promise((resolve) => this.#source.addEventListener(type, resolve, { once: true }));
  }

  get readyState() {
    return this.#source.readyState;
  }

  close() {
    this.#source.close();
  }

  async #post(message) {
    const body = JSON.stringify({ jsonrpc: '2.0', ...message });
    const headers = { 'Content-Type': 'application/json' };
    const response = await fetch([...this.endpoints].at(-1), { method: 'POST', headers, body });
    if (response.status !== 202) throw new Error(`POST was answered with ${response.status}`);
  }

  notify(method, params) {
    return this.#post({ method, params });
  }

  async request(method, params = {}, { onprogress, signal } = {}) {
    const id = this.#next++;
    const sent = onprogress ? { ...params, _meta: { progressToken: id } } : params;
    const answered = new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onprogress });
      signal?.addEventListener('abort', () => {
        this.#waiting.delete(id);
        this.notify('notifications/cancelled', { requestId: id, reason: String(signal.reason) }).catch(reject);
        reject(signal.reason);
      });
    });
    await this.#post({ id, method, params: sent });
    return answered;
  }

  async #answer(id, method, params) {
    await this.#post({ id, result: await this.#answers[method](params) });
  }

  #take(message) {
    const { id, method, params, result, error } = message;
    if (method === 'notifications/progress') {
      this.progressOnWire.push(params);
      this.#waiting.get(params.progressToken)?.onprogress?.(params);
    } else if (method && id === undefined) {
      this.#hear(message);
    } else if (method) {
      this.#answer(id, method, params).catch((failed) => this.strays.push(failed.message));
    } else {
      const waiter = this.#waiting.get(id);
      if (!this.#waiting.delete(id)) this.strays.push(message);
      else if (error) waiter.reject(new ProtocolError(error));
      else waiter.resolve(result);
    }
  }

  listTools = (params) => this.request('tools/list', params);
  listResources = (params) => this.request('resources/list', params);
  listResourceTemplates = (params) => this.request('resources/templates/list', params);
  readResource = (params) => this.request('resources/read', params);
  subscribeResource = (params) => this.request('resources/subscribe', params);
  unsubscribeResource = (params) => this.request('resources/unsubscribe', params);
  listPrompts = (params) => this.request('prompts/list', params);
  getPrompt = (params) => this.request('prompts/get', params);
  callTool = (params, options) => this.request('tools/call', params, options);
}
