-- SECURITY DEFINER: the page's role asks, which may read neither what users chose nor what the owner's condition reads.
--
-- What recommend_videos() would answer if p_version served these users and the vectors that are stored were all there is: nothing is
-- computed, so a user whom no refresh has seen gets popular videos.
create or replace function two_tower.preview_recommendations(
    p_user_ids uuid[], p_version text default null, p_limit int default 20, p_include_known boolean default false
) returns table (user_id uuid, rank int, video_id uuid, score real, reason text, decision text)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $func$
#variable_conflict use_column
declare
    v_version text;
    v_user_id uuid;
    v_history record;
    v_vector extensions.halfvec;
    v_length real;
begin
    perform two_tower.require_page(p_limit, 0, 200);
    foreach v_user_id in array p_user_ids loop
        v_version := coalesce(p_version, two_tower.served_version(v_user_id));
        v_history := two_tower.history_of(v_user_id, v_version);
        select e.embedding, e.length into v_vector, v_length
        from two_tower.user_embeddings e
        where e.model_version = v_version and e.user_id = v_user_id and two_tower.personalised(array[v_user_id]) <> '{}';
        return query
        select v_user_id, r.rank, r.video_id, r.score, r.reason, two_tower.text_of(d.decision_type)
        from two_tower.rank_by_vector(
            v_version, v_vector, 'taste', p_limit, case when p_include_known then '{}' else v_history.decided end,
            two_tower.compile_filter(null, v_user_id), 0,
            v_history.liked, v_history.weights, v_length
        ) r
        left join public.user_video_decisions d on d.user_id = v_user_id and d.video_id = r.video_id
        order by r.rank;
    end loop;
end
$func$;

comment on function two_tower.preview_recommendations(uuid[], text, int, boolean) is
'What any version that has vectors would recommend to users, from stored vectors; with p_include_known also videos they decided on';
