-- SECURITY DEFINER: service_role may embed, and need not be able to read model files for that.
create or replace function two_tower.embed_users(user_ids uuid[], version text default null)
returns table (user_id uuid, embedding extensions.halfvec)
language plpgsql stable security definer set search_path = ''
as $func$
declare
    c_batch constant int := 1000;
    v_version text := two_tower.require_model(version);
begin
    for v_start in 1 .. coalesce(cardinality(user_ids), 0) by c_batch loop
        return query
        select v.user_id, v.embedding
        from (
            select array_agg(e.user_id order by e.user_id) as ids, array_agg(e.input order by e.user_id) as inputs
            from two_tower.encode_users(
                array(select c from two_tower.count_user_features(user_ids[v_start : v_start + c_batch - 1]) c where c.like_count > 0),
                v_version
            ) e
        ) b
        cross join lateral unnest(b.ids, two_tower.infer(v_version, 'user', b.inputs)) as v (user_id, embedding)
        where b.ids is not null;
    end loop;
end
$func$;

comment on function two_tower.embed_users(uuid[], text) is
'Vectors computed from the rows as they are, without storing them; no row for a user without likes';
