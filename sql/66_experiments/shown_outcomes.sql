-- If a video was shown repeatedly, the first time counts. A changed decision counts as it is now, with the time that the application
-- gives it.
create or replace function two_tower.shown_outcomes(
    p_since timestamptz, p_until timestamptz default 'infinity', p_experiment int default null
) returns table (
    model_version text, user_id uuid, video_id uuid, reason text, shown_at timestamptz, label int, decided_at timestamptz
)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select s.model_version, s.user_id, s.video_id, s.reason, s.shown_at, d.label, d.decided_at
    from (
        select distinct on (i.user_id, i.video_id) i.model_version, i.user_id, i.video_id, i.reason, i.shown_at
        from two_tower.impressions i
        left join two_tower.experiments e on e.id = p_experiment
        where i.shown_at >= p_since and i.shown_at < p_until
            -- A client may log what it likes; a user counts for the version that serves the user.
            and (
                p_experiment is null
                or i.model_version = case when two_tower.in_share(i.user_id, e.id, e.share) then e.challenger else e.control end
            )
        order by i.user_id, i.video_id, i.shown_at
    ) as s
    left join lateral (
        select two_tower.decision_label(o.decision_type) as label, two_tower.time_of(o.created_at) as decided_at
        from public.user_video_decisions o
        where o.user_id = s.user_id and o.video_id = s.video_id
    ) as d on d.decided_at >= s.shown_at and d.decided_at < p_until
        -- A client may date a decision; one of the future has not come yet.
        and d.decided_at <= now()
$func$;

comment on function two_tower.shown_outcomes(timestamptz, timestamptz, int) is
'Each video that a user was shown between two times, when first, and what the user then decided: 1 like, 0 nope, -1 skip, null nothing. '
'With the number of an experiment, what its two versions showed to the users whom they serve';
