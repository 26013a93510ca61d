-- In plpgsql as active_version().
create or replace function two_tower.reads_profiles(p_version text) returns boolean
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return exists (
        select from two_tower.model_segments s
        where s.model_version = p_version and s.tower = 'user' and starts_with(s.segment, 'profile_')
    );
end
$func$;

comment on function two_tower.reads_profiles(text) is 'Whether the user tower of a version reads profiles';
