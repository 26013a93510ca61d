-- What two_tower.backfill_model() does between two commits. Only what is missing, so that a second call resumes a broken one. Videos first:
-- users are compared with them.
create or replace function two_tower.backfill_step(
    p_version text, inout phase text, inout after uuid, inout whole boolean, inout seen int, out finished boolean
)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_batch record;
begin
    finished := false;
    case phase
        when 'attach' then
            perform two_tower.attach_partitions(p_version);
            phase := 'change';
            after := null;
        when 'change' then
            if (select m.checked_at is null from two_tower.model_versions m where m.version = p_version) then
                select b.last_id into after from two_tower.backfill_batch(p_version, 'change', after) b;
            else
                phase := 'user';
                after := gen_random_uuid();
                whole := false;
                seen := 0;
            end if;
        when 'finish' then
            perform two_tower.finish_backfill(p_version);
            finished := true;
        else
            select b.last_id, b.seen, b.done into v_batch from two_tower.backfill_batch(p_version, phase, after) b;
            seen := seen + v_batch.seen;
            after := v_batch.last_id;
            if after is null and whole and seen = 0 then
                phase := case phase when 'video' then 'attach' else 'finish' end;
            elsif after is null then
                whole := true;
                seen := 0;
            elsif v_batch.done = 0 then
                perform pg_sleep(0.05);  -- another worker has them
            end if;
    end case;
end
$func$;

comment on function two_tower.backfill_step(text, text, uuid, boolean, int) is
'One step of a backfill (video, attach, change, user, finish), from and to the state that begin_backfill() gave';
