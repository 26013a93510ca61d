-- If the engine's library or a column is missing, there is no answer: lists are popular then, and two-tower doctor, or
-- two_tower.problems, says why.
create or replace function two_tower.place_of_content(p_video_ids uuid[], p_version text)
returns table (video_id uuid, embedding extensions.halfvec)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if (select m.item_engine from two_tower.model_versions m where m.version = p_version) = 'given' then
        return;
    end if;
    return query
    select v.video_id, v.embedding
    from (
        select array_agg(e.video_id order by e.video_id) as ids, array_agg(e.input order by e.video_id) as inputs
        from two_tower.encode_videos(p_video_ids, p_version, true) e
    ) as b
    cross join lateral unnest(b.ids, two_tower.infer(p_version, 'item', b.inputs)) as v (video_id, embedding)
    where b.ids is not null and v.embedding OPERATOR(extensions.<>) two_tower.place_of_the_unknown(p_version);
exception when system_error or undefined_column then null;
end
$func$;

comment on function two_tower.place_of_content(uuid[], text) is
'The places of these videos by their content alone, as if the version did not know them; no row if the content says nothing';
