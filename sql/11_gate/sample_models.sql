-- SECURITY DEFINER: it computes vectors, which takes the owner's rights.
create or replace function two_tower.sample_models(p_sample int default 10) returns table (
    model_version text, what text, value double precision, "limit" double precision, kept boolean, detail text, remedy text
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_min_recall double precision := two_tower.model_setting('gate_min_recall');
    v_max_distance double precision := two_tower.model_setting('gate_max_distance');
    v_number int;
begin
    if p_sample is null or p_sample not between 1 and 1000 then
        raise exception 'the sample must be 1 to 1000, and is %', coalesce(p_sample::text, 'null') using errcode = '22023';
    end if;
    for model_version, v_number in
        select m.version, m.number from two_tower.model_versions m where m.version = any (two_tower.live_versions()) order by m.number
    loop
        what := 'recall';
        value := two_tower.gate_recall(model_version, p_sample);
        "limit" := v_min_recall;
        kept := value >= v_min_recall;
        detail := format('lists of model %s hold %s of the exact nearest videos, and must hold %s', model_version, round(value::numeric, 4), v_min_recall);
        remedy := format('reindex index concurrently two_tower.video_embeddings_%s_hnsw', v_number);
        return next;
        what := 'parity';
        value := two_tower.gate_parity(model_version, p_sample);
        "limit" := v_max_distance;
        kept := value <= v_max_distance;
        detail := format(
            'a stored vector of model %s is %s (cosine distance) from what the model computes, and may be %s', model_version, value, v_max_distance
        );
        remedy := 'call two_tower.rebuild()';
        return next;
    end loop;
end
$func$;

comment on function two_tower.sample_models(int) is
'Measures each live version on a sample of users and videos: recall of its lists against exact search, and how far stored vectors '
'are from computed ones; each with its limit, and with the remedy if it is exceeded';
