-- SECURITY DEFINER: building an index takes the owner of the table.
create or replace function two_tower.finish_backfill(p_version text) returns void
language plpgsql volatile security definer set search_path = ''
as $func$
declare
    v_number int;
begin
    select number into strict v_number from two_tower.model_versions where version = p_version;
    if to_regclass(format('two_tower.video_embeddings_%s_hnsw', v_number)) is null then
        execute format(
            'create index %I on two_tower.%I using hnsw (embedding extensions.halfvec_cosine_ops) with (m = 24, ef_construction = 200)',
            format('video_embeddings_%s_hnsw', v_number), format('video_embeddings_%s', v_number)
        );
        execute format('analyze two_tower.%I', format('video_embeddings_%s', v_number));
    end if;
    update two_tower.model_versions set backfilled_at = coalesce(backfilled_at, now()) where version = p_version;
end
$func$;

comment on function two_tower.finish_backfill(text) is
'Builds the index of a filled version, unless it has one, and notes that it is backfilled';
