create or replace function public.get_item_embedding_feature_batch(
    "limit" int default 1000, "offset" int default 0, after uuid default null
)
returns table (video_id uuid, features jsonb)
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    perform two_tower.require_page("limit", "offset");
    return query
    select p.video_id, p.features
    from two_tower.video_payloads(array(
        select v.id from public.videos v
        where after is null or v.id > after
        order by v.id limit "limit" offset "offset"
    )) p
    order by p.video_id;
end
$func$;

comment on function public.get_item_embedding_feature_batch(int, int, uuid) is
'Payloads of videos in id order; pass the last id as "after" to page without an offset';
