// A bad network between a client and Weir: a proxy on the loopback that cuts event streams when it is told to.

import http from 'node:http';
import { forward, listen } from './forward.mjs';

export class Network {
  // The event streams that are open: how to cut each, seen by the server or not.
  #streams = new Map();
  // Requests for streams that wait, while streams are held.
  #held;
  // Who waits for a stream to be open.
  #waiting = [];
  #server;

  // Stands in front of the server of `url`. `origin` is what to connect to in its place.
  static async before(url) {
    const network = new Network();
    const target = new URL(url);
    network.#server = http.createServer((request, response) => {
      const go = () => network.#pass(target, request, response);
      if (network.#held && request.method === 'GET') network.#held.push(go);
      else go();
    });
    network.origin = await listen(network.#server);
    return network;
  }

  #pass(target, request, response) {
    response.on('close', () => this.#streams.delete(response));
    forward(target, request, response, (headers, part) => {
      if (!headers['content-type']?.startsWith('text/event-stream')) return;
      this.#streams.set(response, { cut: () => request.socket.destroy(), part });
      for (const go of this.#waiting.splice(0)) go();
    });
  }

  // The streams that are open: at least one, which may be a moment away.
  async #open() {
    while (!this.#streams.size) await new Promise((resolve) => this.#waiting.push(resolve));
    return [...this.#streams.values()];
  }

  // The same address behind this network.
  through(url) {
    const { pathname, search } = new URL(url);
    return `${this.origin}${pathname}${search}`;
  }

  // Cuts off the client of every stream. The server does not notice, and goes on talking to nobody.
  async part() {
    const streams = await this.#open();
    for (const { part } of streams) part();
    return { cut: streams.length };
  }

  // Cuts every stream, which client and server both see, and lets no other one begin until it is told to.
  async hold() {
    const streams = await this.#open();
    this.#held ??= [];
    for (const { cut } of streams) cut();
    return { cut: streams.length };
  }

  async release() {
    const waiting = this.#held ?? [];
    this.#held = undefined;
    for (const go of waiting) go();
    return {};
  }
}
