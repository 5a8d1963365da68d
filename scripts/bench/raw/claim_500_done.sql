-- As `claim_500_delete.sql`, but what is done stays, as history.

with due as (
    select id from job where state = 0 order by id limit 500 for update skip locked
), taken as (
    update job set state = 1 from due where job.id = due.id returning job.id
)
select coalesce(array_agg(id), '{}') as ids from taken \gset

update job set state = 2 where id = any (:ids);
