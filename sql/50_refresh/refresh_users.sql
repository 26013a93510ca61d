drop function if exists two_tower.refresh_users(uuid[], text[], boolean);
create or replace function two_tower.refresh_users(p_user_ids uuid[], p_versions text[] default null) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text;
    v_rows int;
    v_written int := 0;
begin
    perform two_tower.store_user_features(p_user_ids);
    foreach v_version in array coalesce(p_versions, two_tower.live_versions()) loop
        with computed as materialized (
            select c.* from two_tower.compute_users(p_user_ids, v_version) c
        ),
        gone as (
            delete from two_tower.user_embeddings e
            where e.model_version = v_version and e.user_id = any (p_user_ids)
                and not exists (select from computed c where c.user_id = e.user_id)
        )
        insert into two_tower.user_embeddings as s (model_version, user_id, embedding)
        select v_version, c.user_id, c.embedding from computed c
        on conflict (model_version, user_id) do update
        set embedding = excluded.embedding, updated_at = now()
        where s.embedding OPERATOR(extensions.<>) excluded.embedding;
        get diagnostics v_rows = row_count;
        v_written := v_written + v_rows;
    end loop;
    return v_written;
end
$func$;

comment on function two_tower.refresh_users(uuid[], text[]) is
'Makes features and vectors of these users what their rows say; the number of vectors written. '
'The caller holds their locks, and the versions';
