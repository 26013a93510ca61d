-- A version without towers: vectors of videos and users that were computed elsewhere. Nothing can recompute them, so refreshes, verify
-- and coverage skip it; deletions apply to it as to other versions (refresh_videos.sql, write_user_vectors.sql).
--
-- stage_given(), add_given() for each batch, close_given(): in one transaction, which leaves nothing where it fails.
--
-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.stage_given(p_version text, p_meta jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if p_version is null or p_version !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' or lower(p_version) = any (two_tower.reserved_versions()) then
        raise exception 'no model version can be called %', quote_nullable(p_version)
            using errcode = '22023', hint = 'A name has 1 to 63 letters, digits, dots, dashes and underscores, and is not "current".';
    end if;
    insert into two_tower.model_versions (version, schema_version, user_dim, item_dim, user_engine, item_engine)
    values (p_version, 2, 1, 1, 'given', 'given');
    insert into two_tower.model_documents (model_version, feature_schema, normalizer, metrics, meta)
    values (p_version, '{}', '{}', '{}', coalesce(p_meta, '{}'));
    update two_tower.model_versions set state = 'staged' where version = p_version;
    perform two_tower.create_partitions(p_version);
exception when unique_violation then
    raise exception 'model version % is registered already', p_version
        using errcode = '23505', hint = 'Give them another version.';
end
$func$;

comment on function two_tower.stage_given(text, jsonb) is
'Begins a version of vectors that were computed elsewhere; add_given() adds to it, and close_given() makes it ready to be '
'activated';
