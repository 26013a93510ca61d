-- Granted to nobody: only the owner may set what runs as the owner.
create or replace function two_tower.set_visible_when(condition text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if condition is null or btrim(condition) = '' then
        raise exception 'the condition is empty' using errcode = '22023',
            hint = 'Say what a video must be to be shown, such as: select two_tower.set_visible_when(''published_at <= now()'').';
    end if;
    begin
        execute format('create or replace view two_tower.visible_videos as select v.id from public.videos v where (%s)', condition);
        -- A condition that compiles may still fail on a row.
        perform count(*) from two_tower.visible_videos;
    exception when others then
        raise exception 'videos cannot be shown by that condition: %', sqlerrm using errcode = '22023',
            hint = 'Write a condition on the columns of public.videos, with other names qualified.';
    end;
    update two_tower.catalogue_rule r set visible_when = condition, stated = true where r.one;
end
$func$;

comment on function two_tower.set_visible_when(text) is
'Sets which videos may be shown in any list, as a condition on public.videos; only for the owner. 22023 if it does not compile';
