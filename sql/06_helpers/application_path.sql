-- Of what was set for the owner and the database alone, and not of the session, whose path its login chooses. What the server's
-- configuration says, an ordinary owner may not read; a path that is set nowhere is Supabase's, which includes PostgreSQL's. Temporary
-- objects come last: they would come first otherwise, and are the caller's.
create or replace function two_tower.application_path() returns text
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select coalesce(
        (
            select substr(c.setting, length('search_path=') + 1)
            from pg_catalog.pg_db_role_setting s
            cross join lateral unnest(s.setconfig) as c (setting)
            where starts_with(c.setting, 'search_path=')
                and s.setdatabase in (0, (select d.oid from pg_catalog.pg_database d where d.datname = current_database()))
                and s.setrole in (0, (select r.oid from pg_catalog.pg_roles r where r.rolname = current_user))
            order by s.setrole <> 0 desc, s.setdatabase <> 0 desc limit 1
        ),
        '"$user", public, extensions'
    ) || ', pg_temp'
$func$;

comment on function two_tower.application_path() is
'The search_path under which a session of the current user begins in this database, for triggers of the application that rely on it';
