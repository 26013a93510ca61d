create or replace function two_tower.begin_backfill(
    p_version text, p_verdict jsonb, out phase text, out after uuid, out whole boolean, out seen int, out finished boolean
)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if p_verdict ->> 'state' = 'rejected' then
        raise exception 'model % is rejected: %', p_version,
            (select string_agg(r.reason, '; ') from jsonb_array_elements_text(p_verdict -> 'reasons') as r (reason))
            using errcode = 'TT003';
    end if;
    phase := 'video';
    -- A start of its own for each worker spreads several over the rows; then round and round, until a whole lap finds nothing.
    after := gen_random_uuid();
    whole := false;
    seen := 0;
    finished := false;
end
$func$;

comment on function two_tower.begin_backfill(text, jsonb) is
'What backfill_step() begins with after what stage_model() answered; TT003 where that is a rejection';
