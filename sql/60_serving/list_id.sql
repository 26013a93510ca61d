-- The same list has the same id, so a routine that gives it is STABLE. The version of the UUID (RFC 9562) says whether filters were asked for,
-- which is all that is known of that once a list was shown: 3 without, 8 with.
create or replace function two_tower.list_id(p_whose uuid, p_version text, p_video_ids uuid[], p_filter two_tower.video_filter) returns uuid
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_id uuid := two_tower.named_id('list', concat_ws(' ', p_whose, p_version, p_video_ids));
begin
    if p_filter is null or not exists (select from jsonb_each(to_jsonb(p_filter)) as f (name, value) where f.value not in ('null', '[]')) then
        return v_id;
    end if;
    return overlay(v_id::text placing '8' from 15)::uuid;
end
$func$;

comment on function two_tower.list_id(uuid, text, uuid[], two_tower.video_filter) is
'The id of a list, derived from its content and from whether filters were used';
