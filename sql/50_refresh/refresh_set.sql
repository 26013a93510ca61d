-- One failing row must not block the others: a failed batch is repeated one by one, and rows that fail alone are set aside. Nor must a
-- locked row: the first features of a user refer to the row in auth.users, which may be about to be deleted. A user whose row stays locked
-- goes back into the log.
create or replace function two_tower.refresh_set(p_kind text, p_ids uuid[]) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_id uuid;
    v_vectors int := 0;
    v_failed int := 0;
    v_busy int := 0;
    c_most_busy constant int := 20;
    c_timeout constant text := current_setting('lock_timeout');
begin
    if p_kind = 'user' then
        perform set_config('lock_timeout', '100ms', true);
    end if;
    begin
        v_vectors := case p_kind when 'user' then two_tower.refresh_users(p_ids) else two_tower.refresh_videos(p_ids) end;
        delete from two_tower.change_failures where kind = p_kind and id = any (p_ids);
    exception
        -- Not the fault of any row: no library, no memory, no disk, a column that is gone, another transaction. Nothing is set aside,
        -- the whole call fails.
        when system_error or insufficient_resources or syntax_error_or_access_rule_violation or transaction_rollback then raise;
        when others then
            -- Videos refer to nothing that a row lock of the application's could hold up: somebody alters a table.
            if p_kind = 'video' and sqlstate = '55P03' then
                raise;
            end if;
            for v_n in 1 .. cardinality(p_ids) loop
                v_id := p_ids[v_n];
                begin
                    v_vectors := v_vectors
                        + case p_kind when 'user' then two_tower.refresh_users(array[v_id]) else two_tower.refresh_videos(array[v_id]) end;
                    delete from two_tower.change_failures where kind = p_kind and id = v_id;
                exception
                    when system_error or insufficient_resources or syntax_error_or_access_rule_violation or transaction_rollback then raise;
                    when lock_not_available then
                        v_busy := v_busy + 1;
                        perform two_tower.mark_changes(p_kind, array[v_id]);
                        -- Then it is no single row that is locked.
                        if v_busy = c_most_busy then
                            perform two_tower.mark_changes(p_kind, p_ids[v_n + 1 :]);
                            exit;
                        end if;
                    when others then
                        v_failed := v_failed + 1;
                        insert into two_tower.change_failures as f (kind, id, sqlstate, error, retry_at)
                        values (p_kind, v_id, sqlstate, sqlerrm, now() + interval '1 minute')
                        on conflict (kind, id) do update
                        set sqlstate = excluded.sqlstate, error = excluded.error, attempts = f.attempts + 1, failed_at = now(),
                            -- 1, 2, 4, ... minutes, a day at most.
                            retry_at = now() + least(interval '1 minute' * 2 ^ least(f.attempts, 11), interval '1 day');
                end;
            end loop;
    end;
    perform set_config('lock_timeout', c_timeout, true);
    return jsonb_build_object('vectors', v_vectors, 'failed', v_failed);
end
$func$;

comment on function two_tower.refresh_set(text, uuid[]) is 'Refreshes users or videos, setting aside those that fail; counts';
