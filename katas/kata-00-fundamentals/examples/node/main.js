// Kata 00, "orders", in Node: the shell. It reads, stores, carries effects out and answers; what an
// order costs and which effects it has is decided in `core.js`.
//
// There is no shutdown code: a process that is safe under SIGKILL at any moment needs none.

import { createServer } from 'node:http';

import { Refused, jsonAnswer, problem } from './answer.js';
import * as core from './core.js';
import { carryOut } from './outside.js';
import * as store from './store.js';

const MAX_BODY_BYTES = 256 * 1024;

async function respond(request) {
  try {
    return await route(request);
  } catch (error) {
    if (error instanceof Refused) return error.answer;
    console.error(error instanceof store.Unavailable ? error.message : error);
    if (error instanceof store.Unavailable) return problem(503, 'The database is away');
    return problem(500, 'Something is wrong on our side');
  }
}

async function route(request) {
  const body = await readBody(request);
  const url = new URL(request.url, 'http://localhost');
  const [, ...path] = url.pathname.split('/');
  switch (`${request.method} ${path.map((part, index) => (index === 1 ? '*' : part)).join('/')}`) {
    case 'GET health':
      return jsonAnswer(200, { status: 'ok' });
    case 'POST quotes': {
      const { lines, at } = core.cartIn(jsonObject(request, body));
      return jsonAnswer(200, core.quote(lines, at));
    }
    case 'POST orders': {
      const order = core.orderIn(jsonObject(request, body));
      return url.searchParams.get('dry_run') === 'true' ? rehearse(order) : place(order);
    }
    case 'GET orders':
      return jsonAnswer(200, { orders: await store.list() });
    case 'GET orders/*':
      return jsonAnswer(200, await found(path[1]));
    case 'POST orders/*/cancel':
      return cancel(path[1], core.cancellationIn(jsonObject(request, body)));
  }
  throw new Refused(404, 'There is nothing here');
}

// First the state, then the effects: a letter cannot be rolled back.
async function place(order) {
  const { total_cents } = core.quote(order.lines, order.placed_at);
  if (await store.insert(order, total_cents)) {
    await carryOut(core.onPlacing(order));
    return jsonAnswer(201, await found(order.order_id));
  }
  return jsonAnswer(200, same(await found(order.order_id), order));
}

// The same functions as above, and nothing is carried out.
async function rehearse(order) {
  const there = await store.find(order.order_id);
  if (there) {
    same(there, order);
    return jsonAnswer(200, { effects: [] });
  }
  const change = { target: 'database', change: 'order placed' };
  return jsonAnswer(200, { effects: [change, ...core.onPlacing(order)] });
}

async function cancel(orderId, cancelledAt) {
  const cancelled = core.isId(orderId) && (await store.cancel(orderId, cancelledAt));
  if (cancelled) await carryOut(core.onCancelling(cancelled));
  return jsonAnswer(200, cancelled || (await found(orderId)));
}

function same(there, order) {
  if (!core.isSame(there, order)) throw new Refused(409, 'This order_id belongs to another order');
  return there;
}

async function found(orderId) {
  const order = core.isId(orderId) && (await store.find(orderId));
  if (!order) throw new Refused(404, 'There is no such order');
  return order;
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
  const [mediaType] = (request.headers['content-type'] ?? '').split(';');
  if (mediaType.trim().toLowerCase() !== 'application/json') {
    throw new Refused(415, 'The body must be application/json');
  }
  let value;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw new Refused(400, 'The body is not JSON');
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new Refused(422, 'The body must be a JSON object');
  }
  return value;
}

const server = createServer(async (request, response) => {
  const { status, mediaType, body } = await respond(request);
  response
    .writeHead(status, { 'Content-Type': mediaType, 'Content-Length': Buffer.byteLength(body) })
    .end(body);
});

await store.createTables();
server.listen(Number(process.env.PORT), '127.0.0.1');
