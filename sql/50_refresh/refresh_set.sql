-- One failing row must not hold up the others: a batch that fails is done again one by one, and what fails alone is set aside.
create or replace function two_tower.refresh_set(p_kind text, p_ids uuid[]) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_id uuid;
    v_vectors int := 0;
    v_failed int := 0;
begin
    begin
        v_vectors := case p_kind when 'user' then two_tower.refresh_users(p_ids) else two_tower.refresh_videos(p_ids) end;
        delete from two_tower.change_failures where kind = p_kind and id = any (p_ids);
    exception
        -- Not the fault of any row: no library, no memory, no disk, a column that is gone, another transaction. Nothing is set aside,
        -- the whole call fails.
        when system_error or insufficient_resources or syntax_error_or_access_rule_violation or transaction_rollback or lock_not_available then raise;
        when others then
            foreach v_id in array p_ids loop
                begin
                    v_vectors := v_vectors
                        + case p_kind when 'user' then two_tower.refresh_users(array[v_id]) else two_tower.refresh_videos(array[v_id]) end;
                    delete from two_tower.change_failures where kind = p_kind and id = v_id;
                exception
                    when system_error or insufficient_resources or syntax_error_or_access_rule_violation or transaction_rollback or lock_not_available then raise;
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
    return jsonb_build_object('vectors', v_vectors, 'failed', v_failed);
end
$func$;

comment on function two_tower.refresh_set(text, uuid[]) is 'Refreshes users or videos, setting aside those that fail; counts';
