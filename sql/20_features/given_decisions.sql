-- weighted_decisions() where nothing depends on time: the weight is what the decision says itself. Of all kinds, with the label of
-- decision_label(), so that a list learns from one reading what its user knows and what that counts.
create or replace function two_tower.given_decisions(p_user_id uuid)
returns table (video_id uuid, label int, weight real)
language sql stable parallel safe security invoker
as $func$
    select c.video_id, c.label, two_tower.decision_weight(0, 0, c.given)
    from (select 1::pg_catalog.float4 as weight) as absent
    cross join lateral (
        select d.video_id, two_tower.decision_label(d.decision_type) as label, two_tower.weight_of(weight) as given
        from public.user_video_decisions d
        where d.user_id operator(pg_catalog.=) p_user_id
    ) as c
$func$;

comment on function two_tower.given_decisions(uuid) is
'All decisions of a user, with the label of each (null for an unknown word) and its own weight';
