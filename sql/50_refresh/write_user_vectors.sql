create or replace function two_tower.write_user_vectors(p_user_ids uuid[], p_versions text[]) returns int
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_given text[] := two_tower.given_versions();
    v_version text;
    v_rows int;
    v_written int := 0;
begin
    foreach v_version in array p_versions loop
        with computed as materialized (
            select c.* from two_tower.compute_users(p_user_ids, v_version) c
        ),
        gone as (
            delete from two_tower.user_embeddings e
            where e.model_version = v_version and e.user_id = any (p_user_ids)
                and not exists (select from computed c where c.user_id = e.user_id)
        )
        insert into two_tower.user_embeddings as s (model_version, user_id, embedding, length)
        select v_version, c.user_id, c.embedding, c.length from computed c
        on conflict (model_version, user_id) do update
        set embedding = excluded.embedding, length = excluded.length, updated_at = now()
        where s.embedding OPERATOR(extensions.<>) excluded.embedding or s.length is distinct from excluded.length;
        get diagnostics v_rows = row_count;
        v_written := v_written + v_rows;
    end loop;
    if v_given <> '{}' then
        delete from two_tower.user_embeddings e
        where e.model_version = any (v_given) and e.user_id = any (p_user_ids)
            and (
                not exists (select from auth.users u where u.id = e.user_id)
                -- They follow no row, but go with who wants none.
                or exists (select from two_tower.user_choices c where c.user_id = e.user_id and not c.personalised)
            );
    end if;
    return v_written;
end
$func$;

comment on function two_tower.write_user_vectors(uuid[], text[]) is
'Recomputes the vectors of these users from their rows; the number of vectors written. The caller holds their locks';
