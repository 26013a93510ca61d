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
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_user_dim int := (p_feature_schema #>> '{user,dim}')::int;
    v_item_dim int := (p_feature_schema #>> '{item,dim}')::int;
    v_max_bytes double precision := two_tower.model_setting('model_max_bytes');
    v_max_distance double precision := two_tower.model_setting('gate_max_distance');
    v_engine text := (select s.value #>> '{}' from two_tower.settings s where s.name = 'inference_engine');
    v_rows boolean := exists (select from two_tower.model_weights w where w.model_version = p_version);
    v_onnxruntime boolean := two_tower.has_onnxruntime();
    v_with_neighbours int := (select count(*) from two_tower.neighbour_lists n where n.model_version = p_version);
    v_registered boolean := exists (select from two_tower.model_versions m where m.version = p_version);
    v_tower text;
    v_file record;
    v_segment record;
    v_size int;
    v_at int;
begin
    if p_version is null or p_version !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' then
        raise exception 'the version % is not a name of 1 to 63 letters, digits, dots, dashes and underscores', quote_nullable(p_version)
            using errcode = '22023';
    end if;
    if lower(p_version) = any (two_tower.reserved_versions()) then
        raise exception 'no model version can be called %: where models are published, that name leads to the current one', p_version
            using errcode = '22023', hint = 'Give the model another version.';
    end if;
    if coalesce((p_feature_schema ->> 'schema_version')::int not in (1, 2), true) then
        raise exception 'feature schema version % is none that this database encodes (1, 2)', coalesce(p_feature_schema ->> 'schema_version', 'null')
            using errcode = '22023', hint = 'Train the model with the matching two-tower release.';
    end if;
    if (case
        when (p_feature_schema ->> 'schema_version')::int = 1 then p_feature_schema #> '{user,recency}' is not null
        when jsonb_typeof(p_feature_schema #> '{user,recency}') is distinct from 'number' then true
        -- (1 + place) ^ -10 has a value, whatever the place.
        else (p_feature_schema #>> '{user,recency}')::numeric not between 0 and 10
    end) then
        raise exception 'user.recency of the feature schema is %, and must be a number from 0 to 10 in schema version 2, or absent in 1',
            coalesce(p_feature_schema #>> '{user,recency}', 'absent') using errcode = '22023';
    end if;
    if v_user_dim is null or v_item_dim is null then
        raise exception 'the feature schema does not say user.dim and item.dim' using errcode = '22023';
    end if;
    if p_metrics is null or p_metrics in ('{}', 'null') then
        raise exception 'model % comes without metrics', p_version using errcode = '22023', hint = 'Evaluate it: two-tower evaluate.';
    end if;
    for v_file in
        select f.name, octet_length(f.content) as size
        from (values ('user tower', p_user_tower), ('item tower', p_item_tower), ('file of weights', p_weights)) as f (name, content)
    loop
        if v_file.size > v_max_bytes
            or v_file.size is null and not v_registered and (not v_rows or v_engine = 'onnxruntime' and v_file.name <> 'file of weights')
        then
            raise exception 'the % %', v_file.name, coalesce('has ' || v_file.size || ' bytes, more than the ' || v_max_bytes || ' allowed', 'is missing')
                using errcode = '22023', hint = 'The setting model_max_bytes in two_tower.settings is the limit.';
        end if;
    end loop;
    -- As two_tower.model_setting() does with numbers.
    if two_tower.setting_error('inference_engine', to_jsonb(v_engine)) is not null then
        raise exception '%', two_tower.setting_error('inference_engine', to_jsonb(v_engine))
            using errcode = '22023', hint = 'update two_tower.settings set value = ''"auto"'' where name = ''inference_engine''';
    end if;
    if v_engine = 'sql' and not v_rows and not v_registered then
        raise exception 'model % comes without its weights as rows, which the engine sql computes from', p_version
            using errcode = '22023', hint = 'Register it with two-tower, or set inference_engine to auto.';
    end if;
    if not v_onnxruntime and not (v_rows and v_engine <> 'onnxruntime') and not v_registered then
        raise exception 'model % needs onnxruntime, which this server does not have%', p_version,
            case when v_rows then '' else ': it comes without its weights as rows' end
            using errcode = '55000', hint = 'Train it with two-tower and set inference_engine to auto; or install PL/Python and onnxruntime (two-tower doctor).';
    end if;
    if v_onnxruntime then
        -- One that is too large to be kept is there as rows.
        if p_user_tower is not null then
            perform two_tower.check_tower('user', p_user_tower, v_user_dim, p_weights, p_metrics #> '{parity,user}', v_max_distance);
        end if;
        if p_item_tower is not null then
            perform two_tower.check_tower('item', p_item_tower, v_item_dim, p_weights, p_metrics #> '{parity,item}', v_max_distance);
        end if;
    end if;
    -- Rows of a version that is registered were checked then, and do not change.
    if v_rows and not v_registered then
        perform two_tower.check_rows(p_version, 'user', v_user_dim, p_metrics #> '{parity,user}', v_max_distance);
        perform two_tower.check_rows(p_version, 'item', v_item_dim, p_metrics #> '{parity,item}', v_max_distance);
    end if;

    if v_with_neighbours > 0 and not v_registered then
        perform two_tower.check_neighbours(p_version, p_vocabularies -> 'video');
    end if;

    foreach v_tower in array array['user', 'item'] loop
        if (
            select jsonb_agg(jsonb_build_array(s.value -> 'name', coalesce(s.value -> 'vocabulary', 'null')) order by s.position)
            from jsonb_array_elements(p_feature_schema #> array[v_tower, 'segments']) with ordinality as s (value, position)
        ) is distinct from (
            select '[["numeric", null]]' || jsonb_agg(jsonb_build_array(i.segment, i.kind) order by i.place, i.segment collate "C")
            from (
                select l.place, l.segment, l.kind
                from two_tower.input_segments() l
                where l.tower = v_tower
                    -- A model from before there were words, or vectors of contents, reads none.
                    and (l.segment not in ('title_words', 'description_words', 'content_vectors') or exists (
                        select from jsonb_array_elements(p_feature_schema #> array[v_tower, 'segments']) as s (value)
                        where s.value ->> 'name' = l.segment
                    ))
                union all
                -- Which columns of profiles a user tower reads, each version has its own: after all others, by name.
                select 1000, s.value ->> 'name', s.value ->> 'name'
                from jsonb_array_elements(p_feature_schema #> array[v_tower, 'segments']) as s (value)
                where v_tower = 'user' and s.value ->> 'name' ~ '^profile_[a-z][a-z0-9_]{0,54}$'
            ) as i
        ) or p_feature_schema #> array[v_tower, 'numeric'] is distinct from (
            select jsonb_agg(n.name order by n.place) from two_tower.input_numbers() n where n.tower = v_tower
        )
        then
            raise exception 'the % segments of the feature schema are not those of schema version %', v_tower, p_feature_schema ->> 'schema_version' using errcode = '22023';
        end if;
        v_at := 0;
        for v_segment in
            select s.* from jsonb_to_recordset(p_feature_schema #> array[v_tower, 'segments'])
                as s (name text, "offset" int, size int, vocabulary text)
        loop
            v_size := case
                when v_segment.vocabulary is null then jsonb_array_length(p_feature_schema #> array[v_tower, 'numeric'])
                when jsonb_typeof(p_vocabularies -> v_segment.vocabulary) = 'array' then jsonb_array_length(p_vocabularies -> v_segment.vocabulary)
            end;
            if v_size is distinct from v_segment.size then
                raise exception 'segment % has % inputs, but vocabulary % has % entries',
                    v_segment.name, v_segment.size, coalesce(v_segment.vocabulary, 'numeric'), coalesce(v_size::text, 'no') using errcode = '22023';
            end if;
            if v_segment."offset" is distinct from v_at then
                raise exception 'segment % of the % tower begins at %, and must begin at %', v_segment.name, v_tower, v_segment."offset", v_at
                    using errcode = '22023';
            end if;
            v_at := v_at + v_size;
        end loop;
        if v_at is distinct from (p_feature_schema #>> array[v_tower, 'dim'])::int then
            raise exception 'the % segments have % inputs together, and the tower has %', v_tower, v_at, p_feature_schema #>> array[v_tower, 'dim']
                using errcode = '22023';
        end if;
    end loop;
    if exists (
        select from jsonb_each(p_vocabularies) as v
        cross join lateral jsonb_array_elements(v.value) as e (key)
        group by v.key, e.key having count(*) > 1 or jsonb_typeof(e.key) <> 'string'
    ) then
        raise exception 'a vocabulary holds an entry twice, or one that is not text' using errcode = '22023';
    end if;

    if v_registered then
        if (
            select count(*) = num_nonnulls(p_user_tower, p_item_tower) from two_tower.model_files
            where model_version = p_version and (name, sha256) in (
                ('user_tower.onnx', encode(sha256(p_user_tower), 'hex')), ('item_tower.onnx', encode(sha256(p_item_tower), 'hex'))
            )
        ) and exists (
            select from two_tower.model_documents d where d.model_version = p_version and p_feature_schema = d.feature_schema
                -- Of a tower that is not kept as a file, the answers say whether it is the same.
                and (p_user_tower is not null or p_metrics #> '{parity,user,outputs}' = d.metrics #> '{parity,user,outputs}')
                and (p_item_tower is not null or p_metrics #> '{parity,item,outputs}' = d.metrics #> '{parity,item,outputs}')
                and p_meta #> '{neighbours,sha256}' is not distinct from d.meta #> '{neighbours,sha256}'
        )
            -- The sizes agree, since both fit the same schema.
            and not exists (
                select v.key, e.key, e.position - 1
                from jsonb_each(p_vocabularies) as v
                cross join lateral jsonb_array_elements_text(v.value) with ordinality as e (key, position)
                except
                select o.vocabulary, o.key, o.index from two_tower.vocabularies o where o.model_version = p_version
            )
        then
            return p_version;
        end if;
        raise exception 'model version % is registered already, with other content', p_version
            using errcode = '23505', hint = 'Give the new model a version of its own.';
    end if;

    insert into two_tower.model_versions (version, schema_version, user_dim, item_dim, user_engine, item_engine, with_neighbours)
    values (
        p_version, (p_feature_schema ->> 'schema_version')::int, v_user_dim, v_item_dim,
        case when v_engine <> 'onnxruntime' and v_rows then 'sql' else 'onnxruntime' end,
        case when v_engine = 'onnxruntime' or (v_engine = 'auto' and v_onnxruntime and p_item_tower is not null) then 'onnxruntime' else 'sql' end,
        v_with_neighbours
    );
    insert into two_tower.model_files (model_version, name, content)
    select p_version, f.name, f.content
    from (values ('user_tower.onnx', p_user_tower), ('item_tower.onnx', p_item_tower), ('weights.safetensors', p_weights)) as f (name, content)
    where f.content is not null;
    insert into two_tower.model_documents (model_version, feature_schema, normalizer, metrics, meta)
    values (p_version, p_feature_schema, coalesce(p_normalizer, '{}'), p_metrics, coalesce(p_meta, '{}'));
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
    if v_rows then
        analyze two_tower.model_weights;
    end if;
    if v_with_neighbours > 0 then
        analyze two_tower.neighbour_lists;
    end if;
    return p_version;
end
$func$;

comment on function two_tower.register_model(text, bytea, bytea, jsonb, jsonb, jsonb, jsonb, jsonb, bytea) is
'Registers a model as a candidate, once for equal content; 22023 names what is wrong with it, 23505 a version that is taken';
