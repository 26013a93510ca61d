-- SECURITY DEFINER: a procedure that commits cannot be one, so two_tower.backfill_model() leaves the work to this.
create or replace function two_tower.backfill_batch(p_version text, p_kind text, p_after uuid default null, p_limit int default 500)
returns uuid
language plpgsql volatile security definer set search_path = ''
as $func$
declare
    v_ids uuid[];
begin
    if p_kind = 'video' then
        v_ids := array(
            select v.id from public.videos v
            where (p_after is null or v.id > p_after) and not exists (
                select from two_tower.video_embeddings e where e.model_version = p_version and e.video_id = v.id
            )
            order by v.id limit p_limit
        );
        perform two_tower.lock_changes('video', v_ids);
        perform two_tower.refresh_videos(v_ids, array[p_version]);
    else
        v_ids := array(
            select f.user_id from public.user_features f
            where (p_after is null or f.user_id > p_after) and f.like_count > 0 and not exists (
                select from two_tower.user_embeddings e where e.model_version = p_version and e.user_id = f.user_id
            )
            order by f.user_id limit p_limit
        );
        perform two_tower.lock_changes('user', v_ids);
        perform two_tower.refresh_users(v_ids, array[p_version]);
    end if;
    return v_ids[cardinality(v_ids)];
end
$func$;

comment on function two_tower.backfill_batch(text, text, uuid, int) is
'Embeds the next videos or users after p_after that lack a vector of the version; the last id, or null when none is left';
