create or replace function two_tower.bound_decision() returns trigger
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    new.created_at := greatest(least(new.created_at, now()), timestamptz '1970-01-01 00:00+00');
    return new;
end
$func$;

comment on function two_tower.bound_decision() is
'Trigger: a decision is of 1970 at the earliest, and of now at the latest, whatever the client says';
