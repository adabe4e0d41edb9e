// Which connection each HTTP request of this process went over, whichever library made it.
'use strict';

const diagnostics = require('node:diagnostics_channel');

const byHost = new Map();

diagnostics.subscribe('http.client.request.start', ({ request }) => {
  const used = { method: request.method, path: request.path, socket: request.socket ?? null };
  request.once('socket', (socket) => { used.socket = socket; });
  const host = request.getHeader('host');
  byHost.set(host, [...(byHost.get(host) ?? []), used]);
});

/** The requests to `host:port` so far: method, path, and the socket (null before there is one). */
const requestsTo = (host) => byHost.get(host) ?? [];

/** Whether the last request to a host went over a connection that an earlier one had used. */
function lastWasReused(host) {
  const requests = requestsTo(host);
  const last = requests.at(-1);
  return requests.slice(0, -1).some((earlier) => earlier.socket !== null && earlier.socket === last?.socket);
}

module.exports = { requestsTo, lastWasReused };
