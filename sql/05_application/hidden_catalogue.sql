-- SECURITY DEFINER: the rule is its owner's, who reads all videos, as the view of those that may be shown does. Everything is looked up when
-- it runs, so that no column of the application is held, and whatever the rule raises is reported.
create or replace function two_tower.hidden_catalogue(out detail text, out remedy text)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_condition text := (select r.visible_when from two_tower.catalogue_rule r);
    v_dated boolean;
begin
    if exists (select from two_tower.visible_videos) or not exists (select from public.videos) then
        return;
    end if;
    detail := format('every list is empty: a video is shown when %s, and none is', v_condition);
    remedy := 'select two_tower.set_visible_when(''…'')';
    execute 'select exists (select from public.videos v where v.published_at is not null)' into v_dated;
    if v_condition ~ '\mpublished_at\M' and not v_dated then
        detail := format('every list is empty: a video is shown when %s, and published_at is null in all', v_condition);
        remedy := 'update public.videos set published_at = now() where published_at is null; '
            'alter table public.videos alter published_at set default now()';
    end if;
exception
    when undefined_table then
        detail := format('no list works: %s', sqlerrm);
        remedy := 'two-tower migrate';
    when undefined_column then
        return;
    when others then
        detail := format('no list works: a video is shown when %s, which fails: %s', v_condition, sqlerrm);
        remedy := 'select two_tower.set_visible_when(''…'')';
end
$func$;

comment on function two_tower.hidden_catalogue() is
'Why no video of the catalogue can be in a list, and what mends it; null if one can be, or if there is no video';
