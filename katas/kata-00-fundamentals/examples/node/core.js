// The core: values in, values out. Nothing in this file knows a database, a clock or a network, and
// so nothing in it is `async`.

import { Refused } from './answer.js';

const ID = /^[A-Za-z0-9._-]{1,64}$/;
const MOMENT = /^(20\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z$/;

export const isId = (value) => typeof value === 'string' && ID.test(value);

const refuse = (what) => {
  throw new Refused(422, what);
};

const isCount = (value, least, most) =>
  Number.isSafeInteger(value) && value >= least && value <= most;

// A time that exists, as it was sent. `Date.UTC` takes the 31st of April for the 1st of May, so we
// look whether what comes out is what went in.
function momentIn(value, name) {
  const found = typeof value === 'string' && MOMENT.exec(value);
  if (found) {
    const [year, month, day, hour, minute, second] = found.slice(1).map(Number);
    const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
    if (date.toISOString() === value.replace('Z', '.000Z')) return value;
  }
  return refuse(`${name} must be a time like 2026-03-07T10:00:00Z that exists`);
}

function linesIn(value) {
  if (!Array.isArray(value) || !isCount(value.length, 1, 100)) refuse('There must be 1 to 100 lines');
  return value.map((line) => {
    const { sku, quantity, unit_price_cents } = line ?? {};
    if (!isId(sku)) refuse('sku must be 1 to 64 of A-Z a-z 0-9 . _ -');
    if (!isCount(quantity, 1, 1e6)) refuse('quantity must be a whole number from 1 to 1000000');
    if (!isCount(unit_price_cents, 0, 1e7)) {
      refuse('unit_price_cents must be a whole number from 0 to 10000000');
    }
    return { sku, quantity, unit_price_cents };
  });
}

// Counted in characters, of which some have a `length` of two. PostgreSQL's text holds no U+0000,
// and half a surrogate pair is no UTF-8.
const isCustomer = (value) =>
  typeof value === 'string' && isCount([...value].length, 1, 64) && !/\0|\p{Surrogate}/u.test(value);

export function orderIn({ order_id, customer, lines, placed_at }) {
  if (!isId(order_id)) refuse('order_id must be 1 to 64 of A-Z a-z 0-9 . _ -');
  if (!isCustomer(customer)) refuse('customer must have 1 to 64 characters');
  return { order_id, customer, lines: linesIn(lines), placed_at: momentIn(placed_at, 'placed_at') };
}

export const cartIn = ({ lines, at }) => ({ lines: linesIn(lines), at: momentIn(at, 'at') });

export const cancellationIn = ({ cancelled_at }) => momentIn(cancelled_at, 'cancelled_at');

// 10^15 cents at most, below 2^53; times ten it would not be exact any more, hence each line for
// itself, and BigInt for the weekend's share of the sum.
export function quote(lines, at) {
  const gross = (line) => line.quantity * line.unit_price_cents;
  const subtotal = lines.reduce((sum, line) => sum + gross(line), 0);
  const bulkLines = lines.filter((line) => line.quantity >= 10);
  const bulk = bulkLines.reduce((sum, line) => sum + Math.floor((gross(line) * 10) / 100), 0);
  // The day of the input, in UTC. `getDay` would be the day in the time zone of this machine.
  const isWeekend = [0, 6].includes(new Date(at).getUTCDay());
  const weekend = isWeekend ? Number((BigInt(subtotal - bulk) * 5n) / 100n) : 0;
  const discount = bulk + weekend;
  return {
    subtotal_cents: subtotal,
    discount_cents: discount,
    total_cents: subtotal - discount,
    rules: [...(bulkLines.length > 0 ? ['bulk'] : []), ...(isWeekend ? ['weekend'] : [])],
  };
}

// Effects as values: what would be done. `outside.js` does it.
const effect = (target, path, body) => ({ target, method: 'POST', path, body });

const mail = (order, template) =>
  effect('mail', '/messages', { to: order.customer, template, order_id: order.order_id });

// Goods first: a customer is not told of what cannot be had.
export const onPlacing = (order) => [
  effect('warehouse', '/reservations', {
    order_id: order.order_id,
    lines: order.lines.map(({ sku, quantity }) => ({ sku, quantity })),
  }),
  mail(order, 'order_placed'),
];

export const onCancelling = (order) => [
  effect('warehouse', '/releases', { order_id: order.order_id }),
  mail(order, 'order_cancelled'),
];

// Whether an order is the one that was sent: the same customer, lines in order, and time.
export const isSame = (there, order) =>
  there.customer === order.customer &&
  there.placed_at === order.placed_at &&
  there.lines.length === order.lines.length &&
  there.lines.every((line, index) =>
    ['sku', 'quantity', 'unit_price_cents'].every((name) => line[name] === order.lines[index][name]));
