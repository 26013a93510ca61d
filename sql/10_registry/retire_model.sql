drop function if exists two_tower.retire_model(text);
-- SECURITY DEFINER: service_role operates the models without owning the tables.
--
-- Detaching a partition takes an exclusive lock on its parent, for a moment. A waiting request blocks all readers behind it,
-- so it waits only 15 ms at a time, until there is a moment without readers. Before that, all writers of vectors have to end, since a
-- vector would find no partition.
create or replace function two_tower.retire_model(p_version text, p_patience interval default '60 seconds') returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_until constant timestamptz := clock_timestamp() + p_patience;
    c_timeout constant text := current_setting('lock_timeout');
    v_model record;
    v_parent text;
begin
    perform two_tower.require_model(p_version);
    perform two_tower.require_no_experiment(p_version);
    loop
        begin
            perform two_tower.close_versions();
            perform set_config('lock_timeout', '15ms', true);
            select m.state, m.number, m.attached_at into v_model from two_tower.model_versions m where m.version = p_version for update;
            if v_model.state not in ('staged', 'standby') then
                raise exception 'model % is % and cannot be retired', p_version, v_model.state
                    using errcode = '55000',
                        hint = case v_model.state when 'active' then 'Activate another version first.' else 'It has no vectors to drop.' end;
            end if;
            if v_model.attached_at is not null then
                lock table two_tower.user_embeddings in access exclusive mode;
                lock table two_tower.video_embeddings in access exclusive mode;
                lock table two_tower.video_tastes in access exclusive mode;
            end if;
            update two_tower.model_versions set state = 'retired', attached_at = null where version = p_version;
            foreach v_parent in array array['user_embeddings', 'video_embeddings', 'video_tastes'] loop
                execute format('drop table if exists two_tower.%I', format('%s_%s', v_parent, v_model.number));
            end loop;
            exit;
        exception when lock_not_available or deadlock_detected then
            if clock_timestamp() > c_until then
                raise exception 'model % is still being read or written', p_version
                    using errcode = '55P03', hint = 'Nothing was changed; try again at a quieter time.';
            end if;
        end;
        perform pg_sleep(0.02 + random() * 0.1);
    end loop;
    perform set_config('lock_timeout', c_timeout, true);
    delete from two_tower.backfill_changes b where b.model_version = p_version;
    delete from two_tower.model_weights w where w.model_version = p_version;
    delete from two_tower.neighbour_lists n where n.model_version = p_version;
end
$func$;

comment on function two_tower.retire_model(text, interval) is
'Drops the vectors, weights and neighbours of a staged or standby version without blocking readers, and keeps its record; 55P03 if '
'it could not get its lock';
