create or replace function public.get_user_embedding_feature_batch(
    "limit" int default 1000, "offset" int default 0, after uuid default null
)
returns table (user_id uuid, features jsonb)
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    perform two_tower.require_page("limit", "offset");
    return query
    select p.user_id, p.features
    from two_tower.user_payloads(array(
        select distinct d.user_id from public.user_video_decisions d
        where after is null or d.user_id > after
        order by d.user_id limit "limit" offset "offset"
    )) p
    order by p.user_id;
end
$func$;

comment on function public.get_user_embedding_feature_batch(int, int, uuid) is
'Payloads of users who have decided on anything, in id order; pass the last id as "after" to page without an offset';
