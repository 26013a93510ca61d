-- SECURITY DEFINER: service_role may embed, and need not be able to read model files for that.
--
-- A refresh stores what it encoded. Of a version that refreshes write, that is what the rows still say unless the change log, or
-- the list of failures, has the user, or any video; then, and of other versions, the rows are counted.
--
-- A generic plan goes by the index, one user after the other; one made for a thousand users may read the whole table for them.
create or replace function two_tower.embed_users(user_ids uuid[], version text default null)
returns table (user_id uuid, embedding extensions.halfvec)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = 'force_generic_plan'
as $func$
declare
    c_batch constant int := 5000;
    c_counted constant int := 1000;  -- whole histories take more memory than inputs
    c_bytes constant int := 2 * 130;
    v_version text := two_tower.require_model(version);
    v_current boolean := v_version = any (two_tower.live_versions()) and not exists (select from two_tower.video_changes);
    v_ids uuid[];
    v_changes boolean := exists (select from two_tower.pending_users) or exists (select from two_tower.change_failures where kind = 'user');
    v_settled uuid[];
    v_stored uuid[];
    v_images bytea;
begin
    for v_start in 1 .. coalesce(cardinality(user_ids), 0) by c_batch loop
        v_ids := array(
            select distinct u.id from unnest(user_ids[v_start : v_start + c_batch - 1]) as u (id) where u.id is not null order by u.id
        );
        if v_current then
            v_settled := v_ids;
            if v_changes then
                v_settled := array(
                    select unnest(v_ids)
                    except select c.user_id from two_tower.pending_users c where c.user_id = any (v_ids)
                    except select f.id from two_tower.change_failures f where f.kind = 'user' and f.id = any (v_ids)
                );
            end if;
            select array_agg(e.user_id),
                two_tower.evaluate_inputs(v_version, array_send(array_agg(octet_length(e.input))), string_agg(e.input, ''))
            into v_stored, v_images
            from two_tower.user_embeddings e
            where e.model_version = v_version and e.user_id = any (v_settled) and e.input is not null;
            if v_stored is not null then
                if octet_length(v_images) <> c_bytes * cardinality(v_stored) then
                    raise exception 'the engine gave % bytes for % vectors', octet_length(v_images), cardinality(v_stored);
                end if;
                return query
                select s.id, two_tower.halfvec_of(substr(v_images, 1 + c_bytes * (s.n::int - 1), c_bytes), 128, true)
                from unnest(v_stored) with ordinality as s (id, n);
                v_ids := array(select unnest(v_ids) except select unnest(v_stored));
            end if;
        end if;
        for v_at in 1 .. cardinality(v_ids) by c_counted loop
            return query
            select c.user_id, case when octet_length(c.image) = c_bytes then two_tower.halfvec_of(c.image, 128, true) end
            from two_tower.compute_users(v_ids[v_at : v_at + c_counted - 1], array[v_version], true, false) as c;
        end loop;
    end loop;
end
$func$;

comment on function two_tower.embed_users(uuid[], text) is
'Vectors computed from the rows as they are, without storing them; no row for a user without likes';
