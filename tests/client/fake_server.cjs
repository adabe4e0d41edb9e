// A server that answers like an interpreter without any of KubeCodeRun's care, and can be told to take some: what a
// case of hangup.cjs runs against where no setting of the real front end makes it behave like that.
'use strict';

const http = require('node:http');

const JSON_TYPE = { 'Content-Type': 'application/json' };
const ANSWER = JSON.stringify({ session_id: 'q3v8m0k2x7c1z5n9b4t6w', stdout: 'woke\n', stderr: '', files: [] });

/** Ways to answer a run that takes `seconds`. */
const answers = {
  /** One answer when the run is over. */
  silent: (response, seconds) => {
    setTimeout(() => response.writeHead(200, JSON_TYPE).end(ANSWER), seconds * 1000);
  },
  /** Option C of the investigation: the status line and one byte at once, then silence. */
  'early byte': (response, seconds) => {
    response.writeHead(200, JSON_TYPE).write(' ');
    setTimeout(() => response.end(ANSWER), seconds * 1000);
  },
  /** Option B: a space every two seconds. */
  spaces: (response, seconds) => {
    const beat = setInterval(() => {
      if (!response.headersSent) response.writeHead(200, JSON_TYPE);
      response.write(' ');
    }, 2000);
    setTimeout(() => { clearInterval(beat); response.end(ANSWER); }, seconds * 1000);
  },
  /** Informational answers instead of spaces; HTTP allows any number of them before the real one. */
  processing: (response, seconds) => {
    const beat = setInterval(() => response.writeProcessing(), 2000);
    setTimeout(() => { clearInterval(beat); response.writeHead(200, JSON_TYPE).end(ANSWER); }, seconds * 1000);
  },
};

/**
 * Start a server on a free port of the loopback interface.
 *   hintSeconds  what its Keep-Alive header announces; 0: it announces nothing
 *   close        whether it closes connections that were used for anything but a run (option A)
 *   answer       one of `answers`
 */
function startServer({ hintSeconds = 0, close = false, answer = 'silent' }) {
  const server = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      if (request.url === '/exec') {
        answers[answer](response, Number(request.headers['x-seconds']));
      } else {
        response.writeHead(200, close ? { ...JSON_TYPE, Connection: 'close' } : JSON_TYPE).end('[]');
      }
    });
  });
  server.keepAliveTimeout = hintSeconds * 1000;
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      resolve({
        base: `http://127.0.0.1:${server.address().port}`,
        stop: () => { server.closeAllConnections(); server.close(); },
      });
    });
  });
}

module.exports = { startServer };
