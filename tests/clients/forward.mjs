// Forwards HTTP requests to another loopback server. Everything passes untouched: method, path, query, Host, every
// other header as written, and both bodies, piece by piece.

import http from 'node:http';

// Of one connection, not of the message; `http` writes its own.
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'proxy-connection', 'te']);

// Name, value, name, value, ... as written, without the fields that are not to be forwarded.
function forwarded(rawHeaders) {
  const kept = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (!HOP_BY_HOP.has(rawHeaders[i].toLowerCase())) kept.push(rawHeaders[i], rawHeaders[i + 1]);
  }
  return kept;
}

// Forwards one request to the server of `target`. `answered` hears the headers of the response, and gets a way to cut
// off the client so that the server does not notice.
export function forward(target, request, response, answered) {
  const headers = forwarded(request.rawHeaders);
  if (request.headers['transfer-encoding']) headers.push('Transfer-Encoding', 'chunked');
  const { hostname, port } = target;
  const upstream = http.request({ hostname, port, method: request.method, path: request.url, headers, setHost: false });
  upstream.setNoDelay(true);
  // A client that goes away cancels its call: the server must see it.
  const leave = () => upstream.destroy();
  upstream.on('response', (answer) => {
    response.writeHead(answer.statusCode, forwarded(answer.rawHeaders));
    response.flushHeaders();
    answer.pipe(response);
    answer.on('error', () => response.destroy());
    answered(answer.headers, () => {
      response.off('close', leave);
      answer.unpipe(response);
      answer.resume();
      request.socket.destroy();
    });
  });
  upstream.on('error', () => {
    if (response.headersSent) response.destroy();
    else response.writeHead(502).end();
  });
  response.on('close', leave);
  request.on('error', leave);
  request.pipe(upstream);
}

// Listens on a free port of the loopback and returns the origin: http://127.0.0.1:PORT.
export async function listen(server) {
  server.on('connection', (socket) => socket.setNoDelay(true));
  server.requestTimeout = 0;
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}`;
}
