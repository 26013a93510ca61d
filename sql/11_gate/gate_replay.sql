-- Refuses a version that is surely worse, by the whole interval; also if nothing can be said, since the operator requires a replay.
create or replace function two_tower.gate_replay(p_replay jsonb, p_max_drop double precision) returns text
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select case
        when p_replay is null then 'it was not replayed on what was shown to users, which the setting gate_max_replay_drop asks for'
        when p_replay ->> 'nothing' is not null then format('its replay says nothing: %s', p_replay ->> 'nothing')
        when r.high is null then 'its replay says nothing: too little of what was shown would have been shown by it'
        when r.high < - p_max_drop * r.other then format(
            'replayed on what was shown, its like rate is %s, at least %s below the %s of active %s', round(r.own, 4), round(- r.high, 4),
            round(r.other, 4), p_replay #>> '{incumbent,version}'
        )
    end
    from (
        select (p_replay ->> 'like_rate')::numeric as own, (p_replay #>> '{incumbent,like_rate}')::numeric as other,
            (p_replay #>> '{difference,high}')::numeric as high
    ) as r
$func$;

comment on function two_tower.gate_replay(jsonb, double precision) is
'Why a replay, as two-tower replay measures it, does not let a version serve; null if it does';
