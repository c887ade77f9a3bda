#!/usr/bin/env node
// A loopback proxy that adds the Authorization header which the conformance suite cannot send.
//
//   PROXY_AUTHORIZATION="Bearer ..." header-proxy.mjs http://127.0.0.1:8080/mcp
//
// Prints the URL to use in place of the given one, then forwards until it is ended. Everything else passes
// untouched: method, path, query, Host, every other header as written, and both bodies, piece by piece.

import http from 'node:http';

const target = new URL(process.argv[2]);
const authorization = process.env.PROXY_AUTHORIZATION;
if (!authorization) throw new Error('PROXY_AUTHORIZATION is not set');

// Of one connection, not of the message; `http` writes its own.
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'proxy-connection', 'te']);

// Name, value, name, value, ... as written, without the fields that are not to be forwarded.
function forwarded(rawHeaders, drop) {
  const kept = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase();
    if (!HOP_BY_HOP.has(name) && !drop.has(name)) kept.push(rawHeaders[i], rawHeaders[i + 1]);
  }
  return kept;
}

const server = http.createServer((request, response) => {
  const headers = forwarded(request.rawHeaders, new Set(['authorization']));
  headers.push('Authorization', authorization);
  if (request.headers['transfer-encoding']) headers.push('Transfer-Encoding', 'chunked');
  const { hostname, port } = target;
  const upstream = http.request({ hostname, port, method: request.method, path: request.url, headers, setHost: false });
  upstream.setNoDelay(true);
  upstream.on('response', (answer) => {
    response.writeHead(answer.statusCode, forwarded(answer.rawHeaders, new Set()));
    response.flushHeaders();
    answer.pipe(response);
    answer.on('error', () => response.destroy());
  });
  upstream.on('error', () => {
    if (response.headersSent) response.destroy();
    else response.writeHead(502).end();
  });
  // A client that goes away cancels its call: the server must see it.
  response.on('close', () => upstream.destroy());
  request.on('error', () => upstream.destroy());
  request.pipe(upstream);
});
server.on('connection', (socket) => socket.setNoDelay(true));
server.requestTimeout = 0;
server.listen(0, '127.0.0.1', () => {
  const here = new URL(target);
  here.port = server.address().port;
  here.hostname = '127.0.0.1';
  console.log(here.href);
});
