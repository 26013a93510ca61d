drop function if exists two_tower.backfill_step(text, text, uuid, boolean, int);
-- What two_tower.backfill_model() and the command line do between two commits; callers pass the state on unchanged. It computes only what is
-- missing, so that a second call resumes an interrupted one. Videos come first, since users are compared with them.
create or replace function two_tower.backfill_step(
    inout state jsonb, out finished boolean, out phase text, out done bigint
)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text := state ->> 'version';
    v_after uuid := (state ->> 'after')::uuid;
    v_seen int := (state ->> 'seen')::int;
    v_batch record;
begin
    finished := false;
    phase := state ->> 'phase';
    done := 0;
    case phase
        when 'attach' then
            if not two_tower.index_partitions(v_version) then
                begin
                    perform two_tower.attach_partitions(v_version, '1 second');
                    phase := 'user';
                    v_after := gen_random_uuid();
                    v_seen := 0;
                    state := state || '{"whole": false}';
                exception when lock_not_available then null;  -- the next step, then
                end;
            end if;
        when 'finish' then
            perform two_tower.finish_backfill(v_version);
            finished := true;
        else
            select b.last_id, b.seen, b.done into v_batch from two_tower.backfill_batch(v_version, phase, v_after) b;
            v_seen := v_seen + v_batch.seen;
            v_after := v_batch.last_id;
            done := v_batch.done;
            if v_after is null and (state ->> 'whole')::boolean and v_seen = 0 then
                phase := case phase when 'video' then 'attach' else 'finish' end;
            elsif v_after is null then
                v_seen := 0;
                state := state || '{"whole": true}';
            elsif done = 0 then
                perform pg_sleep(0.05);  -- another worker has them
            end if;
    end case;
    state := state || jsonb_build_object('phase', phase, 'after', v_after, 'seen', v_seen);
end
$func$;

comment on function two_tower.backfill_step(jsonb) is
'One step of a backfill, from and to the state that begin_backfill() gave; phase is the next one (video, attach, user, finish), '
'done how many rows this one embedded';
