-- SECURITY DEFINER: service_role may embed, and need not be able to read model files for that.
create or replace function two_tower.embed_users(user_ids uuid[], version text default null)
returns table (user_id uuid, embedding extensions.halfvec)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_batch constant int := 1000;
    v_version text := two_tower.require_model(version);
begin
    if (select m.user_engine from two_tower.model_versions m where m.version = v_version) = 'given' then
        raise exception 'the vectors of model % were given, and it computes none', v_version
            using errcode = '55000', hint = 'Ask for a version with towers: two-tower model list.';
    end if;
    for v_start in 1 .. coalesce(cardinality(user_ids), 0) by c_batch loop
        return query
        select c.user_id, c.embedding
        from two_tower.compute_users(
            array(select distinct u.id from unnest(user_ids[v_start : v_start + c_batch - 1]) as u (id) where u.id is not null order by u.id),
            v_version
        ) c;
    end loop;
end
$func$;

comment on function two_tower.embed_users(uuid[], text) is
'Vectors computed from the present rows, without storing them; no row for a user without likes, or a profile that the version reads';
