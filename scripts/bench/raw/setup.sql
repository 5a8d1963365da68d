-- The least that a durable queue needs in PostgreSQL: an order, a state, a payload of the same
-- size as every contestant's. Filled by the driver: `:jobs` is its number.

create table job (
    id bigint generated always as identity primary key,
    state smallint not null default 0, -- 0 ready, 1 taken, 2 done
    payload text not null
);

-- Claims look at ready rows alone; a taken one leaves this index at once, so that a long queue of
-- finished rows is never walked through.
create index job_ready on job (id) where state = 0;
