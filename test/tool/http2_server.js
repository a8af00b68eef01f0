// An HTTP/2 server over TLS for tests: node http2_server.js KEY CERTIFICATE. Prints its port. A
// request for /N is answered when N of them wait. Ends when its standard input does.
'use strict';
const fs = require('fs');
const http2 = require('http2');

let connections = 0;
let waiting = [];
const server = http2.createSecureServer({
  key: fs.readFileSync(process.argv[2]),
  cert: fs.readFileSync(process.argv[3]),
  allowHTTP1: true,
});
server.on('secureConnection', () => ++connections);
server.on('request', (request, response) => {
  waiting.push(response);
  if (waiting.length < Number(request.url.slice(1))) return;
  for (const each of waiting) each.end(JSON.stringify({version: request.httpVersion, connections}));
  waiting = [];
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
