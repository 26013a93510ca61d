-- A sample by hash of the id: the same at every call, and not the first users in some order.
create or replace function two_tower.search_queries(p_version text, p_size int)
returns table (vector extensions.halfvec, length real, decided uuid[], liked uuid[], weights real[])
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select u.embedding, u.length, h.decided, h.liked, h.weights
    from (
        select e.user_id, e.embedding, e.length from two_tower.user_embeddings e where e.model_version = p_version
        order by hashtextextended(e.user_id::text, 1) limit p_size
    ) as u
    cross join lateral two_tower.history_of(u.user_id, p_version) h
    union all
    (
        select e.embedding, null, '{}', '{}', null
        from two_tower.video_embeddings e
        where e.model_version = p_version and not exists (select from two_tower.user_embeddings u where u.model_version = p_version)
        order by hashtextextended(e.video_id::text, 1) limit p_size
    )
$func$;

comment on function two_tower.search_queries(text, int) is
'Index queries of a sample of users; before anybody has liked anything, of a sample of videos';
