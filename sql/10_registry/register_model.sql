-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.register_model(
    p_version text,
    p_user_tower bytea,
    p_item_tower bytea,
    p_feature_schema jsonb,
    p_normalizer jsonb,
    p_vocabularies jsonb,
    p_metrics jsonb,
    p_meta jsonb,
    p_weights bytea
) returns text
language plpgsql volatile security definer set search_path = ''
as $func$
declare
    v_user_dim int := (p_feature_schema #>> '{user,dim}')::int;
    v_item_dim int := (p_feature_schema #>> '{item,dim}')::int;
    v_segment record;
    v_size int;
begin
    if p_version !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' then
        raise exception 'the version % is not a name of 1 to 63 letters, digits, dots, dashes and underscores', quote_literal(p_version)
            using errcode = '22023';
    end if;
    if (p_feature_schema ->> 'schema_version')::int is distinct from 1 then
        raise exception 'feature schema version % is not the one this database encodes (1)', coalesce(p_feature_schema ->> 'schema_version', 'null')
            using errcode = '22023', hint = 'Train the model with the matching two-tower release.';
    end if;
    if v_user_dim is null or v_item_dim is null then
        raise exception 'the feature schema does not say user.dim and item.dim' using errcode = '22023';
    end if;
    if p_metrics is null or p_metrics = '{}' then
        raise exception 'model % comes without metrics', p_version using errcode = '22023', hint = 'Evaluate it: two-tower evaluate.';
    end if;
    perform two_tower.check_tower('user', p_user_tower, v_user_dim);
    perform two_tower.check_tower('item', p_item_tower, v_item_dim);

    for v_segment in
        select s.*
        from (values ('user'), ('item')) as t (tower)
        cross join lateral jsonb_to_recordset(p_feature_schema #> array[t.tower, 'segments'])
            as s (name text, "offset" int, size int, vocabulary text)
        where s.vocabulary is not null
    loop
        v_size := jsonb_array_length(p_vocabularies -> v_segment.vocabulary);
        if v_size is distinct from v_segment.size then
            raise exception 'segment % has % inputs, but vocabulary % has % entries',
                v_segment.name, v_segment.size, v_segment.vocabulary, coalesce(v_size::text, 'no') using errcode = '22023';
        end if;
    end loop;

    if exists (select from two_tower.model_versions where version = p_version) then
        if exists (
            select from two_tower.model_files
            where model_version = p_version and (name, sha256) in (
                ('user_tower.onnx', encode(sha256(p_user_tower), 'hex')), ('item_tower.onnx', encode(sha256(p_item_tower), 'hex'))
            )
            having count(*) = 2
        ) and exists (
            select from two_tower.model_documents d where d.model_version = p_version and d.feature_schema = p_feature_schema
        ) and not exists (
            -- The same towers read by another vocabulary are another model. The sizes are in the schema.
            select v.key, e.key, e.position - 1
            from jsonb_each(p_vocabularies) as v
            cross join lateral jsonb_array_elements_text(v.value) with ordinality as e (key, position)
            except
            select k.vocabulary, k.key, k.index from two_tower.vocabularies k where k.model_version = p_version
        ) then
            return p_version;
        end if;
        raise exception 'model version % is registered already, with other content', p_version
            using errcode = '23505', hint = 'Give the new model a version of its own.';
    end if;

    insert into two_tower.model_versions (version, schema_version, user_dim, item_dim)
    values (p_version, (p_feature_schema ->> 'schema_version')::int, v_user_dim, v_item_dim);
    insert into two_tower.model_files (model_version, name, content)
    values (p_version, 'user_tower.onnx', p_user_tower), (p_version, 'item_tower.onnx', p_item_tower),
        (p_version, 'weights.safetensors', p_weights);
    insert into two_tower.model_documents (model_version, feature_schema, normalizer, metrics, meta)
    values (p_version, p_feature_schema, p_normalizer, p_metrics, p_meta);
    insert into two_tower.model_segments (model_version, tower, segment, vocabulary, "offset", size)
    select p_version, t.tower, s.name, s.vocabulary, s."offset", s.size
    from (values ('user'), ('item')) as t (tower)
    cross join lateral jsonb_to_recordset(p_feature_schema #> array[t.tower, 'segments'])
        as s (name text, "offset" int, size int, vocabulary text);
    insert into two_tower.vocabularies (model_version, vocabulary, key, index)
    select p_version, v.key, e.key, e.position - 1
    from jsonb_each(p_vocabularies) as v
    cross join lateral jsonb_array_elements_text(v.value) with ordinality as e (key, position);
    insert into two_tower.model_inputs (model_version, tower, segment, key, position)
    select p_version, s.tower, s.segment, v.key, s."offset" + v.index + 1
    from two_tower.model_segments s
    join two_tower.vocabularies v on v.model_version = s.model_version and v.vocabulary = s.vocabulary
    where s.model_version = p_version;
    -- The encoder's plan depends on knowing that a vocabulary is large.
    analyze two_tower.model_inputs;
    return p_version;
end
$func$;

comment on function two_tower.register_model(text, bytea, bytea, jsonb, jsonb, jsonb, jsonb, jsonb, bytea) is
'Registers a model as a candidate, once for equal content; 22023 names what is wrong with it, 23505 a version that is taken';
