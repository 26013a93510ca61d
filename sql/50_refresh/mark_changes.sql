-- SECURITY DEFINER: service_role marks without owning the log.
create or replace function two_tower.mark_changes(p_kind text, p_ids uuid[]) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if p_kind = 'user' then
        insert into two_tower.user_changes (user_id) select distinct i.id from unnest(p_ids) as i (id);
    elsif p_kind = 'video' then
        insert into two_tower.video_changes (video_id) select distinct i.id from unnest(p_ids) as i (id);
    else
        raise exception 'there is nothing called % to refresh', p_kind using errcode = '22023', hint = 'user or video.';
    end if;
    return cardinality(p_ids);
end
$func$;

comment on function two_tower.mark_changes(text, uuid[]) is
'Puts these users, or these videos and their likers, into the change log for the next refresh; how many';
