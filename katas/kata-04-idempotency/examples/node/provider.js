// The payment provider, which really takes the money.
//
// It is idempotent itself: the same provider key with the same body is one charge, for ever. That,
// and not our table, is what saves us when a call was made and nobody heard the answer.

import { createHash } from 'node:crypto';

const url = `${process.env.PAYMENT_PROVIDER_URL}/charges`;
const timeoutMs = Number(process.env.PROVIDER_TIMEOUT_MS ?? 30_000);

// No answer that can be relied on. The charge may have been made: only a call with the same
// provider key can tell, so this is never an answer to remember.
export class Outage extends Error {}

export const sha256 = (value) => createHash('sha256').update(JSON.stringify(value)).digest('hex');

// The provider key is computed and not drawn: whoever retries after a crash has nothing but the
// request, and must find the same one. Two accounts never share one, and neither do two payments
// under one key that expired in between (the provider does not forget).
export const keyFor = (...parts) => sha256(parts);

// The charge's id, or null if the card was declined, which is final.
export async function charge(providerKey, payment) {
  let response, body;
  try {
    response = await fetch(url, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'Idempotency-Key': providerKey,
        // A kept connection may be closed by the other side while we write, which would look like
        // an outage.
        Connection: 'close',
      },
      body: JSON.stringify({
        amount_cents: payment.amount_cents,
        currency: payment.currency,
        card: payment.card,
        reference: payment.payment_id,
      }),
      redirect: 'error', // a payment does not follow anybody anywhere
      signal: AbortSignal.timeout(timeoutMs), // `fetch` itself would wait for five minutes
    });
    body = await response.text();
    if (response.status === 402) return null;
    if (response.status === 201) {
      const { charge_id: chargeId } = JSON.parse(body);
      if (typeof chargeId === 'string') return chargeId;
    }
  } catch (error) {
    throw new Outage(`no answer from the provider: ${error.cause?.message ?? error.message}`);
  }
  throw new Outage(`the provider answered ${response.status}`);
}
