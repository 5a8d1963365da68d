-- Keys that requests came with, and what they were answered: shared::idempotency.

create table idempotency_keys (
    -- Whose key it is and what for; two callers may choose the same key.
    scope         text not null,
    key           text not null,
    -- SHA-256 of the request; another request under the same key is a mistake of the client.
    fingerprint   bytea not null,
    -- Of the latest claim; only its owner may answer, renew or release.
    token         bigint not null,
    -- Until then nobody else may run the request.
    locked_until  timestamptz not null,
    -- Until then the key belongs to this request; afterwards to whoever comes.
    expires_at    timestamptz not null,
    -- The answer; all null while the request runs.
    status        smallint,
    header_names  text[],
    header_values bytea[],
    -- Null with a status: the request was done, but its answer was too large to keep.
    body          bytea,
    -- The lock itself: of many that insert a key at the same time, one succeeds.
    primary key (scope, key),
    constraint fingerprint_is_sha256 check (octet_length(fingerprint) = 32),
    -- So that "expired" alone says that nobody is at work, and the clean-up needs one index.
    constraint lease_ends_before_the_key check (locked_until <= expires_at),
    constraint answer_is_whole check (
        case when status is null
             then header_names is null and header_values is null and body is null
             else cardinality(header_names) = cardinality(header_values)
        end
    )
)
-- A key is claimed, renewed and answered in place: room on its page keeps that out of the indexes.
with (fillfactor = 80);

-- For the clean-up, which would read the whole table without it.
create index idempotency_keys_expiry on idempotency_keys (expires_at);

-- Tokens come from one sequence and not from a counter in the row: a row can go and come back, and
-- its counter would begin again at a number that a late handler still holds.
create sequence idempotency_tokens;
