// The use cases. Both ways in (a request with a key, a message with an id) follow one rule:
//
// 1. write down that we are about to charge,
// 2. charge, under a provider key that anybody who retries would compute as well,
// 3. write down what came of it, unless somebody else has taken over meanwhile.
//
// A crash between any two of these leaves something that a retry completes.

import { setTimeout as sleep } from 'node:timers/promises';

import { jsonAnswer, problem } from './answer.js';
import * as provider from './provider.js';
import * as store from './store.js';

export const PAYMENT_MEMBERS = ['payment_id', 'amount_cents', 'currency', 'card'];

export async function pay(account, key, payment) {
  const fingerprint = fingerprintOf(payment);
  const claim = await store.claim(account, key, fingerprint);
  switch (claim.state) {
    case 'reused':
      return problem(422, 'This Idempotency-Key was used with another body');
    case 'running':
      return busy();
    case 'finished':
      return { ...claim.answer, headers: { 'Idempotency-Replayed': 'true' } };
    case 'claimed':
      return chargeAndFinish(account, key, fingerprint, claim.fence, payment);
  }
}

async function chargeAndFinish(account, key, fingerprint, fence, payment) {
  let chargeId;
  try {
    const providerKey = provider.keyFor('pay', account, key, fingerprint);
    chargeId = await provider.charge(providerKey, payment);
  } catch (error) {
    if (!(error instanceof provider.Outage)) throw error;
    console.error(`pay: ${error.message}`);
    await store.releaseKey(account, key, fence);
    return problem(503, 'The payment provider is away', { 'Retry-After': '1' });
  }
  const answer =
    chargeId === null
      ? problem(402, 'The card was declined')
      : jsonAnswer(201, {
          payment_id: payment.payment_id,
          charge_id: chargeId,
          status: 'captured',
        });
  if (await store.finishKey(account, key, fence, answer, payment, chargeId)) return answer;
  // We took longer than the lease. What counts is what our successor stores.
  return busy();
}

const busy = () =>
  problem(409, 'A request with this Idempotency-Key is running', { 'Retry-After': '1' });

// Of the values and not of the bytes: white space and order of members are no difference. A hash,
// because the table has no business with card numbers.
const fingerprintOf = (payment) => provider.sha256(PAYMENT_MEMBERS.map((name) => payment[name]));

// Messages ---------------------------------------------------------------------------------------

const WORKERS = 16;
const POLL_MS = 500;
// Not doubled with each attempt: what was acknowledged has to be done soon after an outage ends.
const RETRY_MS = 1000;

// Once this resolves, the broker may forget the message.
export async function accept(message) {
  await store.keepMessage(message);
  wake();
}

// Does what is in the inbox, for ever. Polling is not a fallback for a lost wake-up only: it also
// finds what another instance, or this one before it crashed, has left.
export async function work() {
  let running = 0;
  for (;;) {
    // A message is taken only when a worker is free: in a queue its lease would run out.
    const taken = running < WORKERS && (await store.takeMessage().catch(report('inbox')));
    if (taken) {
      running += 1;
      // If the database is away, the lease runs out and the message is taken up again.
      doMessage(taken)
        .catch(report('message'))
        .finally(() => {
          running -= 1;
          wake();
        });
    } else {
      await rest();
    }
  }
}

async function doMessage({ message, fence }) {
  const providerKey = provider.keyFor('message', message.message_id, fingerprintOf(message));
  let chargeId;
  try {
    chargeId = await provider.charge(providerKey, message);
  } catch (error) {
    await store.postponeMessage(message.message_id, fence, RETRY_MS);
    throw error;
  }
  await store.finishMessage(message, fence, chargeId); // declined is done, too
}

// A wake-up that comes while nobody rests is kept for the next rest, else a message could wait for
// the poll.
let woken = false;
let endRest = () => {};

function wake() {
  woken = true;
  endRest();
}

async function rest() {
  if (!woken) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, POLL_MS);
      endRest = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
  woken = false;
}

// Keeps the tables small, for ever. Promises do not depend on it: `claim` looks at the time.
export async function reap() {
  for (;;) {
    await store.reap().catch(report('reaper'));
    await sleep(1000);
  }
}

const report = (who) => (error) => console.error(`${who}: ${error.message}`);
