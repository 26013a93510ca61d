drop function if exists two_tower.encode_users(two_tower.user_counts[], text);
-- What the input of the user tower is, by definition; sum_users() comes to the same. Keys become positions by the version's vocabulary,
-- counts stay as they are. Set-based: one hash of the vocabulary serves all users of a batch.
-- extra_float_digits: an input must not depend on how the session likes its numbers printed.
create or replace function two_tower.encode_users(p_user_ids uuid[], p_version text)
returns table (user_id uuid, input extensions.sparsevec)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp set extra_float_digits = 1
as $func$
    with inputs as materialized (
        select c.* from two_tower.user_inputs(p_user_ids, two_tower.recency_of(p_version)) c
    ),
    entries as (
        select c.user_id, i.position, c.value
        from inputs c
        join two_tower.model_inputs i
            on i.model_version = p_version and i.tower = 'user' and i.segment = c.segment and i.key = c.key
        union all
        select c.user_id, n.place, c.value
        from inputs c
        join two_tower.input_numbers() n on n.tower = 'user' and n.name = c.key
        where c.segment = 'numeric'
    )
    select e.user_id, ('{' || string_agg(e.position || ':' || e.value::real, ',') || '}/' || m.user_dim)::extensions.sparsevec
    from entries e cross join two_tower.model_versions m
    where m.version = p_version
    group by e.user_id, m.user_dim
$func$;

comment on function two_tower.encode_users(uuid[], text) is
'Raw user-tower inputs, one sparse vector of user_dim counts per user who likes or dislikes anything';
