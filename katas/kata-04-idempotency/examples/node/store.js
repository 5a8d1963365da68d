// What is remembered, and the statements that make the promises true.
//
// A key goes
//
//     free    → running   claim: one statement decides, so of fifty requests one wins
//     running → finished  finish: the answer is stored, to be replayed until it expires
//     running → running   claim: the lease is over, the same request takes the key over
//     any     → free      its time is over, whether or not the reaper has come by
//
// Times are the database's own (`now()`): instances do not have to agree about a clock.
//
// Every statement is a transaction of its own and one round trip. So a connection never waits,
// with locks held, for our next word: a process that dies or falls silent blocks nobody.

import pg from 'pg';

const LEASE_MS = Number(process.env.KEY_LEASE_MS ?? 30_000);
const TTL_MS = Number(process.env.KEY_TTL_MS ?? 86_400_000);

const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL, // undefined: pg looks at PGHOST, PGUSER and the rest
  // The contract allows 64 for all instances together. No connection is held while the provider
  // is called, so a few are enough for many requests.
  max: 16,
  connectionTimeoutMillis: 10_000,
  query_timeout: 10_000,
});
// The pool drops a connection that breaks while idle, and says so here. Without a listener, Node
// takes an 'error' event for a reason to end the process.
pool.on('error', (error) => console.error(`idle connection: ${error.message}`));

// The statement has perhaps not run, or has run and the answer was lost: nobody knows.
export class Unavailable extends Error {}

async function run(statement, values) {
  try {
    // `pool.query` closes a connection on which anything went wrong: a new one costs
    // milliseconds, a poisoned one costs every request that gets it.
    return (await pool.query(statement, values)).rows;
  } catch (error) {
    throw new Unavailable(error.message, { cause: error });
  }
}

const SCHEMA = `
-- The fencing tokens. A counter inside a key's row would start again with the next row of that
-- key, and an old handler could hold the same number as a new one; a sequence never repeats.
create sequence if not exists fences;

create table if not exists idempotency_keys (
    account     text        not null,
    key         text        not null,
    fingerprint text        not null,  -- of the request, to tell a retry from a mistake
    fence       bigint      not null,  -- who may finish or release; changes with each claim
    lease_until timestamptz not null,  -- a handler that has died holds the key no longer than this
    expires_at  timestamptz not null,  -- never before lease_until: the expiry is the longer one
    status      int,                   -- null while running
    media_type  text,
    body        text,
    primary key (account, key)         -- a key belongs to its account; this also picks the winner
);
create index if not exists idempotency_keys_expires_at on idempotency_keys (expires_at);

-- A record of what the provider has charged. The provider's id makes writing it twice harmless.
create table if not exists payments (
    account      text        not null,
    payment_id   text        not null,
    charge_id    text        not null,
    amount_cents bigint      not null,
    currency     text        not null,
    captured_at  timestamptz not null default now(),
    primary key (account, payment_id, charge_id)
);

create table if not exists inbox (
    message_id text        primary key,
    request    text,                   -- null once done: the card number is not kept for nothing
    fence      bigint,
    due_at     timestamptz not null default now(),  -- when to take it up: at once, or lease over
    done_at    timestamptz
);
create index if not exists inbox_due_at on inbox (due_at) where done_at is null;
create index if not exists inbox_done_at on inbox (done_at);
`;

export const createTables = () => run(SCHEMA);

// Takes the key if it is free, and otherwise says what is in the way: one of
// { state: 'claimed', fence }, { state: 'finished', answer }, { state: 'running' } (or its handler
// has died and the lease is not over), { state: 'reused' } (for another request).
//
// `fence` is a bigint in the database and stays text here: a JavaScript number would round it.
export async function claim(account, key, fingerprint) {
  for (;;) {
    const [claimed] = await run(
      `insert into idempotency_keys as k
           (account, key, fingerprint, fence, lease_until, expires_at)
       values ($1, $2, $3, nextval('fences'),
               now() + $4 * interval '1 millisecond',
               now() + $5 * interval '1 millisecond')
       on conflict (account, key) do update
           set fingerprint = excluded.fingerprint, fence = excluded.fence,
               lease_until = excluded.lease_until, expires_at = excluded.expires_at,
               status = null, media_type = null, body = null
           where k.expires_at <= now()
              or (k.status is null and k.lease_until <= now()
                  and k.fingerprint = excluded.fingerprint)
       returning fence`,
      [account, key, fingerprint, LEASE_MS, TTL_MS],
    );
    if (claimed) return { state: 'claimed', fence: claimed.fence };

    // A second statement, because the first one's snapshot may be older than the row that was in
    // its way.
    const [row] = await run(
      `select fingerprint, status, media_type, body from idempotency_keys
       where account = $1 and key = $2`,
      [account, key],
    );
    if (!row) continue; // it expired between the two statements: now it can be had
    // First of all, and while the first request still runs too: a caller that mixes up its keys
    // must hear of it, and never wait for (or see) the other request's answer.
    if (row.fingerprint !== fingerprint) return { state: 'reused' };
    if (row.status === null) return { state: 'running' };
    const { status, media_type: mediaType, body } = row;
    return { state: 'finished', answer: { status, mediaType, body } };
  }
}

// A charge is a fact, whoever heard of it: recording it needs no fence and may happen twice.
// Takes $1 to $5; without a charge id ($3) there is nothing to record.
const RECORD_CHARGE = `
    charge as (
        insert into payments (account, payment_id, charge_id, amount_cents, currency)
        select $1, $2, $3::text, $4::bigint, $5
        where $3::text is not null
        on conflict do nothing
    )`;
const chargeValues = (account, payment, chargeId) => [
  account, payment.payment_id, chargeId, payment.amount_cents, payment.currency,
];

// Stores the answer, and the charge if there is one, in one transaction. False: too late, another
// handler has the key now, and nothing of that handler's was touched.
export async function finishKey(account, key, fence, answer, payment, chargeId) {
  const rows = await run(
    `with ${RECORD_CHARGE}
     update idempotency_keys
         set status = $6, media_type = $7, body = $8,
             expires_at = now() + $9 * interval '1 millisecond'
         where account = $1 and key = $10 and fence = $11
         returning true`,
    [
      ...chargeValues(account, payment, chargeId),
      answer.status, answer.mediaType, answer.body, TTL_MS, key, fence,
    ],
  );
  return rows.length > 0;
}

// Ends the lease. The row stays: the outcome may be unknown, and then the key must not serve
// another request before its time is over.
export const releaseKey = (account, key, fence) =>
  run(
    `update idempotency_keys set lease_until = now()
     where account = $1 and key = $2 and fence = $3 and status is null`,
    [account, key, fence],
  );

export async function findPayment(account, paymentId) {
  // A payment that was sent under two keys has two charges; the latest one is shown.
  const [row] = await run(
    `select charge_id, amount_cents, currency from payments
     where account = $1 and payment_id = $2
     order by captured_at desc limit 1`,
    [account, paymentId],
  );
  return row && {
    payment_id: paymentId,
    amount_cents: Number(row.amount_cents), // exact: no amount above 2^53 - 1 gets in
    currency: row.currency,
    charge_id: row.charge_id,
    status: 'captured',
  };
}

// After this the message may be acknowledged. The primary key makes a second push nothing.
export const keepMessage = (message) =>
  run('insert into inbox (message_id, request) values ($1, $2) on conflict do nothing', [
    message.message_id,
    JSON.stringify(message),
  ]);

// A message that is due, with the fence under which it may be finished, or undefined. Its lease is
// the time at which it is due again. `skip locked`: two instances take two messages, not turns.
export async function takeMessage() {
  const [row] = await run(
    `update inbox set fence = nextval('fences'),
                      due_at = now() + $1 * interval '1 millisecond'
     where message_id = (select message_id from inbox
                         where done_at is null and due_at <= now()
                         order by due_at limit 1
                         for update skip locked)
     returning request, fence`,
    [LEASE_MS],
  );
  return row && { message: JSON.parse(row.request), fence: row.fence };
}

export const finishMessage = (message, fence, chargeId) =>
  run(
    `with ${RECORD_CHARGE}
     update inbox set done_at = now(), request = null
     where message_id = $6 and fence = $7`,
    [...chargeValues(message.account, message, chargeId), message.message_id, fence],
  );

export const postponeMessage = (messageId, fence, delayMs) =>
  run(
    `update inbox set due_at = now() + $3 * interval '1 millisecond'
     where message_id = $1 and fence = $2 and done_at is null`,
    [messageId, fence, delayMs],
  );

// Deletes what nobody can ask for any more. A message that comes again after that is done again
// under the provider key it had: still one charge.
export async function reap() {
  // `skip locked`: two reapers, or a reaper and a claim, never wait for each other.
  await run(
    `delete from idempotency_keys where (account, key) in (
         select account, key from idempotency_keys
         where expires_at <= now() limit 1000 for update skip locked)`,
  );
  await run(
    `delete from inbox where message_id in (
         select message_id from inbox
         where done_at <= now() - $1 * interval '1 millisecond'
         limit 1000 for update skip locked)`,
    [TTL_MS],
  );
}
