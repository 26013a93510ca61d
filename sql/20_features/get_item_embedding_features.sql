-- row_security: what the caller may see is all there is, also where the database has it that this is an error.
create or replace function public.get_item_embedding_features(video_id uuid) returns jsonb
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp set row_security = on
as $func$
declare
    v_features jsonb;
begin
    select p.features into v_features from two_tower.video_payloads(array[get_item_embedding_features.video_id]) p;
    if v_features is null then
        raise exception 'there is no video %', get_item_embedding_features.video_id using errcode = 'P0002';
    end if;
    return v_features;
end
$func$;

comment on function public.get_item_embedding_features(uuid) is 'The inputs of the item tower for a video, as JSON';
