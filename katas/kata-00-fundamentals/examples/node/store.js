// The state: orders in PostgreSQL, and nothing in the memory of the process.
//
// Every statement is a transaction of its own and one round trip: a process that dies or falls
// silent leaves nothing half done, and blocks nobody.

import pg from 'pg';

const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL, // undefined: pg looks at PGHOST, PGUSER and the rest
  max: 10,
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
    return (await pool.query(statement, values)).rows;
  } catch (error) {
    throw new Unavailable(error.message, { cause: error });
  }
}

export const createTables = () => run(`
create table if not exists orders (
    order_id     text   primary key,
    customer     text   not null,
    lines        jsonb  not null,  -- the whole order is one row: half of one cannot exist
    total_cents  bigint not null,
    placed_at    text   not null,  -- as it was sent; all have one form, so they sort like times
    cancelled_at text
)`);

// True if it was not there. Of many at once one wins, in whichever instance.
export async function insert(order, totalCents) {
  const rows = await run(
    `insert into orders (order_id, customer, lines, total_cents, placed_at)
     values ($1, $2, $3, $4, $5) on conflict do nothing returning true`,
    // `pg` would make a PostgreSQL array of a JavaScript one.
    [order.order_id, order.customer, JSON.stringify(order.lines), totalCents, order.placed_at],
  );
  return rows.length > 0;
}

export async function find(orderId) {
  const [row] = await run('select * from orders where order_id = $1', [orderId]);
  return row && shown(row);
}

// By bytes: without `collate "C"` the order is that of the database's language.
export async function list() {
  const rows = await run(
    'select * from orders order by placed_at collate "C", order_id collate "C"',
  );
  return rows.map(shown);
}

// The order, if this call has cancelled it.
export async function cancel(orderId, cancelledAt) {
  const [row] = await run(
    `update orders set cancelled_at = $2
     where order_id = $1 and cancelled_at is null returning *`,
    [orderId, cancelledAt],
  );
  return row && shown(row);
}

const shown = (row) => ({
  order_id: row.order_id,
  customer: row.customer,
  lines: row.lines,
  total_cents: Number(row.total_cents), // bigint comes as text; exact, 10^15 at most
  status: row.cancelled_at === null ? 'placed' : 'cancelled',
  placed_at: row.placed_at,
  cancelled_at: row.cancelled_at,
});
