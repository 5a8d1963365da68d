// The edge: the only file that calls out.

const BASES = { mail: process.env.MAIL_URL, warehouse: process.env.WAREHOUSE_URL };

// One after the other, each once. Nobody knows whether a call that failed has done its work, so it
// is not repeated; and the order is a fact by now, so the next one is made all the same.
export async function carryOut(effects) {
  for (const { target, method, path, body } of effects) {
    try {
      // Joined, not resolved: `new URL('/messages', base)` would drop the base's own path.
      const response = await fetch(`${BASES[target]}${path}`, {
        method,
        headers: { 'Content-Type': 'application/json', Connection: 'close' },
        body: JSON.stringify(body),
        redirect: 'error',
        signal: AbortSignal.timeout(30_000),
      });
      await response.text();
      if (!response.ok) console.error(`${target} ${path}: ${response.status}`);
    } catch (error) {
      console.error(`${target} ${path}: ${error.cause?.message ?? error.message}`);
    }
  }
}
