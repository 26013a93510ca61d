-- SECURITY DEFINER: nobody but the owner may write vectors.
create or replace function two_tower.add_given(p_version text, p_kind text, p_ids uuid[], p_embeddings extensions.halfvec[]) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_number int := (
        select m.number from two_tower.model_versions m
        where m.version = p_version and m.user_engine = 'given' and m.state = 'staged' and m.attached_at is null
    );
    v_taken int;
begin
    if v_number is null then
        raise exception 'model % takes no vectors', quote_nullable(p_version) using errcode = '55000', hint = 'Begin with two_tower.stage_given().';
    end if;
    if p_kind not in ('video', 'user') then
        raise exception 'vectors are of a video or a user, not of a %', quote_nullable(p_kind) using errcode = '22023';
    end if;
    if cardinality(p_ids) <> cardinality(p_embeddings) or array_position(p_ids, null) is not null or exists (
        select from unnest(p_embeddings) as e (embedding)
        -- The dimension is asked for first: an array of vectors does not have one.
        where case when extensions.vector_dims(e.embedding) = 128 then extensions.l2_norm(e.embedding) > 0 end is not true
    ) then
        raise exception 'each id must have a vector of 128 numbers, not all of them zero' using errcode = '22023';
    end if;
    execute format(
        'insert into two_tower.%I (model_version, %I, embedding) select $1, g.id, extensions.l2_normalize(g.embedding) '
        'from unnest($2, $3) as g (id, embedding) where exists (select from %s k where k.id = g.id) '
        'and not exists (select from two_tower.user_choices c where c.user_id = g.id and not c.personalised) on conflict do nothing',
        format('%s_embeddings_%s', p_kind, v_number), p_kind || '_id', case p_kind when 'video' then 'public.videos' else 'auth.users' end
    ) using p_version, p_ids, p_embeddings;
    get diagnostics v_taken = row_count;
    return v_taken;
end
$func$;

comment on function two_tower.add_given(text, text, uuid[], extensions.halfvec[]) is
'Adds vectors of videos or users, scaled to length 1, to a version that stage_given() began; how many. Skips unknown ids, '
'users who opted out of personal lists, and vectors that are already there';
