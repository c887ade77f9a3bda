#!/usr/bin/env node
// A loopback proxy that adds the Authorization header which the conformance suite cannot send.
//
//   PROXY_AUTHORIZATION="Bearer ..." header-proxy.mjs http://127.0.0.1:8080/mcp
//
// Prints the URL to use in place of the given one, then forwards until it is ended. It works on bytes, not on HTTP
// messages, so that what a client sends arrives as it was sent, also where it is odd: space around values, fields that are
// there twice, bytes that HTTP does not allow. Each connection carries one request, because only the first head is read.

import net from 'node:net';

const MAX_HEAD = 256 * 1024;

const target = new URL(process.argv[2]);
const authorization = process.env.PROXY_AUTHORIZATION;
if (!authorization) throw new Error('PROXY_AUTHORIZATION is not set');

// The head of a request with our credential. One character of latin1 is one byte.
function withCredential(head) {
  const [request, ...fields] = head.toString('latin1').split('\r\n');
  const kept = fields.filter((field) => !/^(authorization|connection)[ \t]*:/i.test(field));
  const lines = [request, `Authorization: ${authorization}`, 'Connection: close', ...kept];
  return Buffer.from(lines.join('\r\n'), 'latin1');
}

function forward(client) {
  const upstream = net.connect({ host: target.hostname, port: target.port, noDelay: true });
  let head = Buffer.alloc(0);
  const read = (piece) => {
    head = Buffer.concat([head, piece]);
    const end = head.indexOf('\r\n\r\n');
    if (end === -1) {
      if (head.length > MAX_HEAD) client.destroy();
      return;
    }
    client.off('data', read);
    upstream.write(withCredential(head.subarray(0, end)));
    upstream.write(head.subarray(end));
    client.pipe(upstream);
  };
  client.on('data', read);
  upstream.pipe(client);
  // A client that goes away cancels its call: the server must see it.
  client.on('close', () => upstream.destroy());
  client.on('error', () => upstream.destroy());
  upstream.on('close', () => client.end());
  upstream.on('error', () => client.destroy());
}

const server = net.createServer({ noDelay: true }, forward);
server.listen(0, '127.0.0.1', () => {
  const here = new URL(target);
  here.port = server.address().port;
  here.hostname = '127.0.0.1';
  console.log(here.href);
});
