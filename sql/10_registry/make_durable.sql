-- A message of the write-ahead log and nothing else: the smallest commit that waits for the disk, and for all that came before it.
create or replace function two_tower.make_durable() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    perform pg_logical_emit_message(true, 'two_tower', 'make_durable');
end
$func$;

comment on function two_tower.make_durable() is
'Once its transaction has committed, no crash can undo earlier commits. Call it after activate_model() or rollback_model(), '
'whose own commits do not wait for the disk';
