-- SECURITY DEFINER: whoever may write a decision may not write the log. All of them are statement-level and only append:
-- a writer takes no lock that a refresh, or another writer, could hold.
create or replace function two_tower.log_inserted_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_few constant int := 100;
    v_logged int;
begin
    -- Most statements decide on one video, and are spared the cost of looking for another row of the same user. After a bulk load,
    -- these few are logged twice, which does no harm.
    insert into two_tower.user_change_log (user_id)
    select n.user_id from new_rows n where n.decision_type::text <> 'skip' limit c_few;
    get diagnostics v_logged = row_count;
    if v_logged = c_few then
        insert into two_tower.user_change_log (user_id)
        select distinct n.user_id from new_rows n where n.decision_type::text <> 'skip';
    end if;
    return null;
end
$func$;

create or replace function two_tower.log_deleted_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.user_change_log (user_id)
    select distinct o.user_id from old_rows o where o.decision_type::text <> 'skip';
    return null;
end
$func$;

create or replace function two_tower.log_updated_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- An upsert of new rows comes here, too, with none.
    if not exists (select from new_rows) then
        return null;
    end if;
    -- Rows that are the same before and after cancel out, whatever else the statement touched.
    insert into two_tower.user_change_log (user_id)
    select c.user_id
    from (
        (select user_id, video_id, decision_type, created_at from old_rows
        except select user_id, video_id, decision_type, created_at from new_rows)
        union all
        (select user_id, video_id, decision_type, created_at from new_rows
        except select user_id, video_id, decision_type, created_at from old_rows)
    ) as c
    where c.decision_type::text <> 'skip'
    group by c.user_id;
    return null;
end
$func$;

create or replace function two_tower.log_truncated_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- A truncate of auth.users that cascades has emptied user_features as well; vectors still tell whose they are.
    insert into two_tower.user_change_log (user_id)
    select f.user_id from public.user_features f
    union
    select e.user_id from two_tower.user_embeddings e;
    return null;
end
$func$;

comment on function two_tower.log_inserted_decisions() is 'Trigger: logs the users of inserted decisions';
comment on function two_tower.log_deleted_decisions() is 'Trigger: logs the users of deleted decisions';
comment on function two_tower.log_updated_decisions() is 'Trigger: logs the users of decisions that an update changed';
comment on function two_tower.log_truncated_decisions() is 'Trigger: logs every user with features or vectors';
