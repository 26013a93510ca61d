-- Row by row, for changes that statement triggers do not see: rows that logical replication applies, sessions with session_replication_role =
-- replica, and writes into a partition. The trigger's argument names the column with the id; if the table no longer has it, or it has another
-- type, it may be anybody. Not every logged change affects a vector; the refresh then finds nothing to write.
--
-- SECURITY DEFINER: whoever may write the table may not write the log.
create or replace function two_tower.log_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- What places a video and makes no user, as log_updated_videos() has it.
    c_places_alone constant text[] := array['title', 'description', 'duration_seconds', 'product_released_at', 'distribution_started_at'];
    v_ids uuid[];
    v_reaches_users boolean := true;
begin
    if tg_op <> 'INSERT' then
        v_ids := array[two_tower.id_of_word(to_json(old) ->> tg_argv[0])];
    end if;
    if tg_op <> 'DELETE' then
        v_ids := v_ids || two_tower.id_of_word(to_json(new) ->> tg_argv[0]);
    end if;
    if tg_argv[0] = 'user_id' then
        insert into two_tower.user_change_log (user_id) select distinct i.id from unnest(v_ids) as i (id);
    else
        if tg_op = 'UPDATE' then
            -- As JSON is written: values are not read.
            v_reaches_users := exists (
                select from json_each(to_json(old)) as o (name, value)
                full join json_each(to_json(new)) as n (name, value) on n.name = o.name
                where o.value::text is distinct from n.value::text and coalesce(o.name, n.name) <> all (c_places_alone)
            );
        end if;
        insert into two_tower.video_changes (video_id, reaches_users) select distinct i.id, v_reaches_users from unnest(v_ids) as i (id);
    end if;
    return null;
end
$func$;

comment on function two_tower.log_row() is 'Trigger: logs the user or video of one row, whose column is its argument';
