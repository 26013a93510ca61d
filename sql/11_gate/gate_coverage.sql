-- In plpgsql, since what it calls is created after it.
create or replace function two_tower.gate_coverage(p_version text, out videos bigint, out users bigint)
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    select c.missing_videos, c.missing_users into videos, users from two_tower.count_coverage(array[p_version]) c;
end
$func$;

comment on function two_tower.gate_coverage(text) is
'How many videos, and users with a like or a profile that the version reads, lack a vector of an attached version';
