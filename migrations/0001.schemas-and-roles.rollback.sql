-- Roles stay: they belong to the cluster, and other databases may use them.
do $auth$
begin
    if exists (select from two_tower.created_objects where kind = 'function' and name = 'auth.uid()') then
        drop function auth.uid();
    end if;
    if exists (select from two_tower.created_objects where kind = 'table' and name = 'auth.users') then
        drop table auth.users;
    end if;
    if exists (select from two_tower.created_objects where kind = 'schema' and name = 'auth') then
        drop schema auth;
    end if;
end
$auth$;

drop table two_tower.created_objects;

drop schema two_tower;
