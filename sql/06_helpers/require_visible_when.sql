-- A list for one client is read as that client. A list for many users is read as the owner, whom the application's policies do not bind.
create or replace function two_tower.require_visible_when() returns void
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if not (select r.stated from two_tower.catalogue_rule r)
        and not exists (select from two_tower.created_objects o where o.kind = 'table' and o.name = 'public.videos')
        and exists (select from pg_catalog.pg_class c where c.oid = 'public.videos'::regclass and c.relrowsecurity)
    then
        raise exception 'public.videos has policies of the application, and nobody has said which videos may be shown to anybody'
            using errcode = '55000',
                hint = 'As the owner run, for instance: select two_tower.set_visible_when(''published_at <= now()'').';
    end if;
end
$func$;

comment on function two_tower.require_visible_when() is
'Raises 55000 if the application''s policies hide videos and no condition says which may be shown';
