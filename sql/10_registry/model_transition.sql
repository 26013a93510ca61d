-- The lifecycle, and its history. Whoever changes a state with a gate's report at hand leaves it in two_tower.report for the
-- event's row; the setting is local to the transaction, and changes nothing but what the history says.
create or replace function two_tower.model_transition() returns trigger
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_report jsonb := nullif(current_setting('two_tower.report', true), '')::jsonb;
begin
    if tg_op = 'TRUNCATE' then
        raise exception 'the model registry cannot be truncated' using errcode = '55000', hint = 'Delete versions that are not live.';
    elsif tg_op = 'DELETE' then
        if old.state in ('staged', 'active', 'standby') then
            raise exception 'model % is % and cannot be deleted', old.version, old.state
                using errcode = '55000', hint = 'Retire it first: select two_tower.retire_model(version).';
        end if;
        return old;
    elsif tg_op = 'INSERT' then
        if new.state <> 'candidate' or coalesce(new.attached_at, new.backfilled_at, new.activated_at) is not null then
            raise exception 'model % must begin as a candidate', new.version using errcode = '55000';
        end if;
    else
        if (new.version, new.schema_version, new.user_dim, new.item_dim)
            is distinct from (old.version, old.schema_version, old.user_dim, old.item_dim)
        then
            raise exception 'model % is registered, and what is registered does not change', old.version using errcode = '55000';
        end if;
        if old.state = new.state then
            return new;
        end if;
        if (old.state, new.state) not in (
            ('candidate', 'staged'), ('candidate', 'rejected'), ('staged', 'active'), ('staged', 'standby'), ('staged', 'retired'),
            ('active', 'standby'), ('standby', 'active'), ('standby', 'retired')
        ) then
            raise exception 'model % cannot go from % to %', new.version, old.state, new.state using errcode = '55000';
        end if;
        -- Whoever is served by it would be without.
        perform two_tower.require_no_experiment(new.version);
        if new.state in ('active', 'standby') and new.attached_at is null then
            raise exception 'model % has no vectors yet', new.version
                using errcode = '55000', hint = format('Run: call two_tower.backfill_model(%L)', new.version);
        end if;
    end if;
    insert into two_tower.model_events (model_version, from_state, to_state, forced, report)
    values (
        new.version, case when tg_op = 'UPDATE' then old.state end, new.state, coalesce((v_report ->> 'forced')::boolean, false), v_report
    );
    return new;
end
$func$;

comment on function two_tower.model_transition() is
'Trigger: refuses transitions that the lifecycle does not have, and records the others in two_tower.model_events';

create or replace trigger two_tower_transition before insert or update or delete on two_tower.model_versions
for each row execute function two_tower.model_transition();

create or replace trigger two_tower_no_truncate before truncate on two_tower.model_versions
for each statement execute function two_tower.model_transition();
