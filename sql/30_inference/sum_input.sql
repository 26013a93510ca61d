-- Terms are added in the order of their positions, so that a sum does not depend on what else is computed with it.
create or replace function two_tower.sum_input(p_version text, p_input extensions.sparsevec) returns extensions.vector
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    select b.weight OPERATOR(extensions.+) coalesce((
        select extensions.sum(two_tower.times(r.weight, split_part(e.entry, ':', 2)::real) order by r.at)
        from unnest(string_to_array(split_part(substr(p_input::text, 2), '}', 1), ',')) as e (entry)
        join two_tower.model_rows(p_version, 'user', 'row') r on r.at = split_part(e.entry, ':', 1)::int
        where e.entry <> ''
    ), b.weight OPERATOR(extensions.-) b.weight)
    from two_tower.model_rows(p_version, 'user', 'bias') b
$func$;

comment on function two_tower.sum_input(text, extensions.sparsevec) is
'The user tower''s output for a raw input before it is scaled to length 1; null if the tower is not stored as rows';
