drop function if exists two_tower.compute_users(uuid[], text);
drop function if exists two_tower.compute_users(uuid[], text[], boolean, boolean, boolean);
create or replace function two_tower.compute_users(p_user_ids uuid[], p_version text)
returns table (user_id uuid, embedding extensions.halfvec, length real)
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_user_ids constant uuid[] := two_tower.personalised(p_user_ids);
    v_engine text := (select m.user_engine from two_tower.model_versions m where m.version = p_version);
begin
    -- Of given vectors there are no others.
    if v_engine = 'given' then
        return;
    elsif v_engine = 'sql' then
        return query select s.user_id, s.embedding, s.length from two_tower.sum_users(c_user_ids, p_version) s;
    else
        return query select d.user_id, d.embedding, d.length from two_tower.define_users(c_user_ids, p_version) d;
    end if;
end
$func$;

comment on function two_tower.compute_users(uuid[], text) is
'Vectors of these users from the present rows: as sums if the weights of the version are rows, otherwise by definition. Also the lengths '
'of the sums, null if there are none. No row for users without likes, unless the version knows a key of the profile, for '
'users who opted out '
'of personal lists, or for a version of given vectors';
