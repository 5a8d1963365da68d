// Kata 04, "charge once", in Node: the HTTP side. Start reading at `pay.js` for the idea.
//
// There is no shutdown code: a process that is safe under SIGKILL at any moment needs none.

import { createServer } from 'node:http';

import { Refused, jsonAnswer, problem } from './answer.js';
import * as pay from './pay.js';
import * as store from './store.js';

const MAX_BODY_BYTES = 64 * 1024;

const ACCOUNT = /^[A-Za-z0-9._-]{1,64}$/;
const BEARER = /^bearer +([A-Za-z0-9._-]{1,64})$/i;
// With and without quotes it is one key: the quotes are how it is written, not what it is. (Two
// header lines arrive joined by a comma, and are refused.)
const KEY = /^(?:"([A-Za-z0-9._:-]{1,255})"|([A-Za-z0-9._:-]{1,255}))$/;
const CURRENCY = /^[A-Z]{3}$/;

async function respond(request) {
  try {
    return await route(request);
  } catch (error) {
    if (error instanceof Refused) return error.answer;
    console.error(error instanceof store.Unavailable ? error.message : error);
    if (error instanceof store.Unavailable) {
      return problem(503, 'The database is away', { 'Retry-After': '1' });
    }
    return problem(500, 'Something is wrong on our side');
  }
}

async function route(request) {
  const body = await readBody(request);
  const [, ...path] = request.url.split('?')[0].split('/');
  switch (`${request.method} ${path[0]} ${path.length}`) {
    case 'GET health 1':
      return jsonAnswer(200, { status: 'ok' });
    case 'POST pay 1': {
      const account = accountOf(request);
      const key = keyOf(request);
      return pay.pay(account, key, paymentIn(jsonObject(request, body)));
    }
    case 'GET payments 2':
      return showPayment(accountOf(request), path[1]);
    case 'POST messages 1':
      return takeMessage(jsonObject(request, body));
  }
  throw new Refused(404, 'There is nothing here');
}

function accountOf(request) {
  const found = BEARER.exec(request.headers.authorization ?? '');
  if (!found) {
    throw new Refused(401, 'Authorization: Bearer <account> is missing or malformed', {
      'WWW-Authenticate': 'Bearer',
    });
  }
  return found[1];
}

function keyOf(request) {
  const found = KEY.exec(request.headers['idempotency-key'] ?? '');
  if (!found) throw new Refused(400, 'Idempotency-Key is missing or malformed');
  return found[1] ?? found[2];
}

async function readBody(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    // To stop reading would close the connection, and the client would never see the answer.
    if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  if (bytes > MAX_BODY_BYTES) throw new Refused(413, 'The body is too long');
  return Buffer.concat(chunks);
}

function jsonObject(request, body) {
  const [mediaType] = (request.headers['content-type'] ?? 'application/json').split(';');
  if (mediaType.trim().toLowerCase() !== 'application/json') {
    throw new Refused(415, 'The body must be application/json');
  }
  let value;
  try {
    // Fatal: two bodies that differ only in broken bytes must not become the same text.
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw new Refused(400, 'The body is not JSON');
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new Refused(422, 'The body must be a JSON object');
  }
  return value;
}

// Text that PostgreSQL can hold: it has no U+0000, and half a surrogate pair is no UTF-8. Counted
// in characters, of which some have a `length` of two.
const isText = (value, longest) =>
  typeof value === 'string' && value !== '' && [...value].length <= longest &&
  !/\0|\p{Surrogate}/u.test(value);

// The payment, or a refusal.
function paymentIn(value) {
  const names = Object.keys(value);
  if (names.length !== 4 || !names.every((name) => pay.PAYMENT_MEMBERS.includes(name))) {
    throw new Refused(422, `The body must have ${pay.PAYMENT_MEMBERS.join(', ')} and nothing else`);
  }
  if (!isText(value.payment_id, 64) || !isText(value.card, 64)) {
    throw new Refused(422, 'payment_id and card must be text of 1 to 64 characters');
  }
  // 2^53 and above may have been rounded by `JSON.parse`; "safe" ends one below. 5.0 is 5 here.
  if (!Number.isSafeInteger(value.amount_cents) || value.amount_cents < 1) {
    throw new Refused(422, 'amount_cents must be a whole number from 1 to 2^53 - 1');
  }
  if (typeof value.currency !== 'string' || !CURRENCY.test(value.currency)) {
    throw new Refused(422, 'currency must be three capital letters');
  }
  return value;
}

async function showPayment(account, encodedId) {
  let paymentId;
  try {
    paymentId = decodeURIComponent(encodedId);
  } catch {
    // `%zz`: no payment has such an id
  }
  const payment = isText(paymentId, 64) && (await store.findPayment(account, paymentId));
  if (!payment) throw new Refused(404, 'There is no such payment');
  return jsonAnswer(200, payment);
}

async function takeMessage(message) {
  const { type, message_id, account } = message;
  // Acknowledged without effect: a type that we do not know is for somebody else, and refusing it
  // would only make it come again.
  if (typeof type === 'string' && type !== 'payment.requested') {
    return jsonAnswer(202, { status: 'ignored' });
  }
  if (typeof type !== 'string' || !isText(message_id, 255)) {
    throw new Refused(422, 'message_id and type must be text');
  }
  if (typeof account !== 'string' || !ACCOUNT.test(account)) {
    throw new Refused(422, 'account must be 1 to 64 of A-Z a-z 0-9 . _ -');
  }
  // Unlike the body of a request, an event may grow members that are not for us.
  const members = pay.PAYMENT_MEMBERS.filter((name) => name in message);
  const payment = paymentIn(Object.fromEntries(members.map((name) => [name, message[name]])));
  await pay.accept({ message_id, account, ...payment });
  return jsonAnswer(202, { status: 'accepted' });
}

const server = createServer(async (request, response) => {
  const { status, mediaType, body, headers } = await respond(request);
  response
    .writeHead(status, {
      'Content-Type': mediaType,
      'Content-Length': Buffer.byteLength(body),
      ...headers,
    })
    .end(body);
});

// What Node cannot even parse: as a problem, too.
server.on('clientError', (error, socket) => {
  if (!socket.writable) return;
  const { status, mediaType, body } = problem(400, 'The request is malformed');
  socket.end(
    `HTTP/1.1 ${status} Bad Request\r\nContent-Type: ${mediaType}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
});

await store.createTables();
pay.work();
pay.reap();
server.listen(Number(process.env.PORT), '127.0.0.1');
