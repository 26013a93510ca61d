-- Last in a transaction that took changes of videos out of the log, so that others who do the same wait for its end only. A
-- random value, not a count: one that was rolled back must not come again.
create or replace function two_tower.renew_catalogue() returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
    update two_tower.catalogue_state set generation = gen_random_uuid() where one
$func$;

comment on function two_tower.renew_catalogue() is 'Tells backends that what they know of videos is out of date';
