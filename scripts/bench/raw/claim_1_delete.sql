-- The same two durable steps for one job at a time. What keeps it going are many clients: their
-- commits share a flush of the log.

update job set state = 1
where id = (select id from job where state = 0 order by id limit 1 for update skip locked)
returning id \gset

delete from job where id = :id;
