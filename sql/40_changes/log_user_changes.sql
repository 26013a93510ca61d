-- SECURITY DEFINER: whoever may write a decision may not write the log. All of them are statement-level and only append:
-- a writer takes no lock that a refresh, or another writer, could hold.
--
-- The application may drop or rename a column, and its writes must go on. Hence the names without a table before them, and the row called
-- absent around them: a name that the table has no longer is found there, at no cost. Who changed is logged all the same, or that somebody
-- did; the refresh, which reads the column, fails until it is back, as two_tower.problems says, and then loses nothing. Or it may change a
-- type: what is read here is read by functions of sql/04_values, which take any.
create or replace function two_tower.log_inserted_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
-- Whatever columns the application has besides.
#variable_conflict use_variable
declare
    -- As row_count is: a cast, like every expression, is set up anew in each transaction, and takes as long as writing to the log.
    v_logged bigint;
begin
    -- Most statements decide on one video, and are spared the cost of looking for another row of the same user. After a bulk load,
    -- these few are logged twice, which does no harm; nor does another way to write skip, which costs less to log than to look for.
    insert into two_tower.user_change_log (user_id)
    select c.user_id
    from (select '00000000-0000-0000-0000-000000000000'::uuid as user_id, 'like' as decision_type) as absent
    cross join lateral (
        select two_tower.id_of(user_id) as user_id from new_rows where two_tower.text_of(decision_type) collate "C" <> 'skip' limit 100
    ) as c
    where c.user_id is not null;
    get diagnostics v_logged = row_count;
    if v_logged = 100 then
        insert into two_tower.user_change_log (user_id)
        select c.user_id
        from (select '00000000-0000-0000-0000-000000000000'::uuid as user_id, 'like' as decision_type) as absent
        cross join lateral (
            select distinct two_tower.id_of(user_id) as user_id from new_rows where two_tower.text_of(decision_type) collate "C" <> 'skip'
        ) as c
        where c.user_id is not null;
    end if;
    return null;
end
$func$;

create or replace function two_tower.log_deleted_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    insert into two_tower.user_change_log (user_id)
    select c.user_id
    from (select '00000000-0000-0000-0000-000000000000'::uuid as user_id, 'like' as decision_type) as absent
    cross join lateral (
        select distinct two_tower.id_of(user_id) as user_id from old_rows where two_tower.decision_label(decision_type) <> -1
    ) as c
    where c.user_id is not null;
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
    -- Rows that mean the same before and after cancel out, whatever else the statement touched. Of a column that is absent, the two differ;
    -- but a table may do without weights.
    insert into two_tower.user_change_log (user_id)
    select distinct d.user_id
    from (
        select c.user_id
        from (
            select 1 as n, c.*
            from (
                select '00000000-0000-0000-0000-000000000000'::uuid as user_id,
                    '00000000-0000-0000-0000-000000000000'::uuid as video_id, 'like' as decision_type, date '2000-01-01' as created_at, 1 as weight
            ) as absent
            cross join lateral (
                select two_tower.id_of(user_id) as user_id, two_tower.text_of(video_id) as video_id,
                    two_tower.decision_label(decision_type) as label, two_tower.time_of(created_at) as at,
                    two_tower.weight_of(weight) as weight
                from old_rows
            ) as c
            union all
            select -1, c.*
            from (
                select '00000000-0000-0000-0000-000000000000'::uuid as user_id,
                    '00000000-0000-0000-0000-000000000001'::uuid as video_id, 'nope' as decision_type, date '2000-01-02' as created_at, 1 as weight
            ) as absent
            cross join lateral (
                select two_tower.id_of(user_id) as user_id, two_tower.text_of(video_id) as video_id,
                    two_tower.decision_label(decision_type) as label, two_tower.time_of(created_at) as at,
                    two_tower.weight_of(weight) as weight
                from new_rows
            ) as c
        ) as c
        where c.label <> -1 and c.user_id is not null
        group by c.user_id, c.video_id, c.label, c.at, c.weight
        having sum(c.n) <> 0
    ) as d;
    return null;
end
$func$;

create or replace function two_tower.log_truncated_decisions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    -- Everybody, as the refresh finds them: a snapshot of whoever truncates may be too old to know them all.
    insert into two_tower.user_change_log (user_id) values ('00000000-0000-0000-0000-000000000000');
    return null;
end
$func$;

comment on function two_tower.log_inserted_decisions() is 'Trigger: logs the users of inserted decisions';
comment on function two_tower.log_deleted_decisions() is 'Trigger: logs the users of deleted decisions';
comment on function two_tower.log_updated_decisions() is 'Trigger: logs the users of decisions that an update changed';
comment on function two_tower.log_truncated_decisions() is 'Trigger: logs everybody';
