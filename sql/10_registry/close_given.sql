-- SECURITY DEFINER: building an index and attaching take the owner of the tables.
create or replace function two_tower.close_given(p_version text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if not exists (select from two_tower.model_versions m where m.version = p_version and m.user_engine = 'given') then
        raise exception 'model % is no version of given vectors', quote_nullable(p_version) using errcode = '55000';
    end if;
    perform two_tower.attach_partitions(p_version);
    -- From here on refreshes remove vectors of deleted users and videos; those deleted before are removed here.
    delete from two_tower.video_embeddings e
    where e.model_version = p_version and not exists (select from public.videos v where v.id = e.video_id);
    delete from two_tower.user_embeddings e
    where e.model_version = p_version and not exists (select from auth.users u where u.id = e.user_id);
    update two_tower.model_versions set backfilled_at = clock_timestamp()
    where version = p_version and backfilled_at is null;
end
$func$;

comment on function two_tower.close_given(text) is 'Indexes a version of given vectors and makes it ready to be activated';
