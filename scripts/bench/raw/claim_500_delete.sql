-- Two durable steps for 500 jobs: taken, so that no one else works on them and a crash shows that
-- somebody did; gone, once they are done. Run with `pgbench --protocol=prepared`.

with due as (
    -- `skip locked`: claims side by side take other rows instead of waiting for each other.
    select id from job where state = 0 order by id limit 500 for update skip locked
), taken as (
    update job set state = 1 from due where job.id = due.id returning job.id
)
select coalesce(array_agg(id), '{}') as ids from taken \gset

delete from job where id = any (:ids);
