drop function if exists two_tower.attach_partitions(text);
-- SECURITY DEFINER: building an index and attaching take the owner of the tables.
--
-- Attaching takes a lock on the parents that does not block readers and writers (SHARE UPDATE EXCLUSIVE). From then on refreshes
-- write the version. What they consumed while its videos were being computed goes back into the log.
-- Transactions that write vectors without knowing of the version have to end first, or it would miss the changes that they take from the log.
create or replace function two_tower.attach_partitions(p_version text, p_patience interval default '60 seconds') returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_until constant timestamptz := clock_timestamp() + p_patience;
    v_number int;
begin
    perform two_tower.index_partitions(p_version);
    select number into v_number from two_tower.model_versions where version = p_version and state = 'staged' and attached_at is null;
    if v_number is null then
        return false;
    end if;
    execute format('alter table two_tower.user_embeddings attach partition two_tower.user_embeddings_%s for values in (%L)', v_number, p_version);
    execute format('alter table two_tower.video_embeddings attach partition two_tower.video_embeddings_%s for values in (%L)', v_number, p_version);
    execute format('alter table two_tower.video_tastes attach partition two_tower.video_tastes_%s for values in (%L)', v_number, p_version);
    loop
        begin
            perform two_tower.close_versions();
            exit;
        exception when lock_not_available then
            if clock_timestamp() > c_until then
                raise exception 'vectors are being written in a transaction that does not end' using errcode = '55P03',
                    hint = 'Nothing was changed; try again when it has ended. In pg_stat_activity it is the oldest xact_start.';
            end if;
        end;
        -- Batches that were blocked meanwhile go first.
        perform pg_sleep(0.02 + random() * 0.1);
    end loop;
    update two_tower.model_versions set attached_at = clock_timestamp() where version = p_version;
    with consumed as (
        delete from two_tower.backfill_changes b where b.model_version in (p_version, '') returning b.video_id, b.reaches_users
    )
    insert into two_tower.video_changes (video_id, reaches_users) select c.video_id, bool_or(c.reaches_users) from consumed c group by c.video_id;
    return true;
end
$func$;

comment on function two_tower.attach_partitions(text, interval) is
'Indexes the video vectors of a staged version and lets refreshes write it; false if that is already done, '
'55P03 if somebody has been writing vectors for longer than p_patience';
