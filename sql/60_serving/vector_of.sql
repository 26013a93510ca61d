create or replace function two_tower.vector_of(p_user_id uuid, p_version text, out embedding extensions.halfvec, out length real)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
#variable_conflict use_column
begin
    if p_version is null then
        return;
    end if;
    select e.embedding, e.length into vector_of.embedding, vector_of.length
    from two_tower.user_embeddings e where e.model_version = p_version and e.user_id = p_user_id;
    if vector_of.embedding is null
        and (exists (select from public.user_video_decisions d where d.user_id = p_user_id) or two_tower.reads_profiles(p_version))
    then
        begin
            select e.embedding, e.length into vector_of.embedding, vector_of.length from two_tower.compute_users(array[p_user_id], p_version) e;
        exception
            -- Without its library the engine cannot answer; the list is popular then, and two-tower doctor says why.
            when system_error then null;
        end;
    end if;
end
$func$;

comment on function two_tower.vector_of(uuid, text) is
'The vector of a user, stored or, where no refresh has seen the user yet, computed on the spot, and the length of its sum; null for nobody';
