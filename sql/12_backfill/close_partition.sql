-- Supabase grants new tables to everybody by default, and an application may to others; partitions are read through their parents.
create or replace function two_tower.close_partition(p_name text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_grantee text;
begin
    execute format('alter table two_tower.%I enable row level security', p_name);
    execute format('revoke all on two_tower.%I from public', p_name);
    for v_grantee in
        select distinct pg_get_userbyid(a.grantee)
        from pg_catalog.pg_class c cross join lateral aclexplode(c.relacl) a
        where c.oid = to_regclass(format('two_tower.%I', p_name)) and a.grantee not in (0, c.relowner)
    loop
        execute format('revoke all on two_tower.%I from %I', p_name, v_grantee);
    end loop;
end
$func$;

comment on function two_tower.close_partition(text) is 'Revokes all access to a new table of schema two_tower from everybody but its owner';
