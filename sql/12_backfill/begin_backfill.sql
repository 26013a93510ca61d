drop function if exists two_tower.begin_backfill(text, jsonb);
drop function if exists two_tower.begin_backfill(text, boolean);
-- SECURITY DEFINER: what is to be done is counted in tables of the application.
create or replace function two_tower.begin_backfill(
    p_version text, p_force boolean default false, p_measured jsonb default null, p_overrides jsonb default null,
    out state jsonb, out finished boolean, out phase text, out done bigint, out total bigint, out failure text, out failure_code text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_verdict jsonb := two_tower.stage_model(p_version, p_force, p_measured, p_overrides);
begin
    phase := 'video';
    finished := v_verdict ->> 'state' = 'rejected';
    if finished then
        failure := format(
            'model %s is rejected: %s', p_version, (select string_agg(r.reason, '; ') from jsonb_array_elements_text(v_verdict -> 'reasons') as r (reason))
        );
        failure_code := 'TT003';
    end if;
    -- Given vectors cannot be computed.
    finished := finished or (select m.user_engine from two_tower.model_versions m where m.version = p_version) = 'given';
    total := (select count(*) from public.videos) + (select count(*) from two_tower.liking_users())
        + two_tower.count_by_profile(p_version);
    done := two_tower.backfilled_share(p_version) * total;
    -- Each worker starts at another row, and goes round until a whole lap finds nothing.
    state := jsonb_build_object('version', p_version, 'phase', phase, 'after', gen_random_uuid(), 'whole', false, 'seen', 0);
end
$func$;

comment on function two_tower.begin_backfill(text, boolean, jsonb, jsonb) is
'Stages a candidate and gives the state that backfill_step() begins with; failure says why it is rejected, which is committed then. '
'p_measured, p_overrides: as two_tower.gate_metrics() takes them. Of total videos and users, done have vectors';
