-- SECURITY DEFINER: a procedure that commits cannot be one, so two_tower.refresh() leaves the work to this.
--
-- It locks first, then deletes the log rows, then reads: every statement here sees at least what the ones before it saw (READ
-- COMMITTED), so it reads every change whose log row it deleted, and a later change has a log row of its own.
create or replace function two_tower.refresh_batch(p_after uuid default null, p_limit int default 1000, out result jsonb, out last_id uuid)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- What triggers log for everybody, and where the column that says who changed is absent.
    c_somebody constant uuid := '00000000-0000-0000-0000-000000000000';
    v_limit int := least(p_limit, two_tower.take_room(false));
    v_found uuid[];
    v_ids uuid[];
    v_reaching uuid[];
    v_users int := 0;
    v_videos int := 0;
begin
    perform two_tower.hold_versions('batch');
    -- Videos first, since their likers follow from them where users are made of what changed: the first that are free, however many another transaction holds.
    v_ids := array(
        select f.video_id
        from (select distinct c.video_id from two_tower.video_changes c order by c.video_id) as f
        where pg_try_advisory_xact_lock(two_tower.change_key('video', f.video_id))
        limit v_limit
    );
    if v_ids <> '{}' then
        with taken as (
            delete from two_tower.video_changes c where c.video_id = any (v_ids) returning c.video_id, c.reaches_users
        ),
        -- Versions whose videos are being embedded get it again when they are attached (two_tower.attach_partitions()).
        kept as (
            insert into two_tower.backfill_changes as b (model_version, video_id, reaches_users)
            select v.version, t.video_id, bool_or(t.reaches_users)
            from taken t
            cross join (
                select m.version from two_tower.model_versions m
                where m.state = 'staged' and m.attached_at is null and m.user_engine <> 'given'
                -- An old snapshot does not know all of them.
                union all select '' where current_setting('transaction_isolation') <> 'read committed'
            ) as v
            group by v.version, t.video_id
            on conflict (model_version, video_id) do update set reaches_users = true where excluded.reaches_users and not b.reaches_users
        )
        select array_agg(distinct t.video_id) filter (where t.reaches_users) into v_reaching from taken t;
        if c_somebody = any (v_ids) then
            insert into two_tower.video_changes (video_id)
            select v.id from public.videos v where v.id <> c_somebody
            union select e.video_id from two_tower.video_embeddings e where e.video_id <> c_somebody;
        end if;
        insert into two_tower.user_changes (user_id)
        select distinct d.user_id from public.user_video_decisions d
        where d.video_id = any (v_reaching) and two_tower.decision_label(d.decision_type) <> -1;
        result := two_tower.refresh_set('video', v_ids);
        v_videos := cardinality(v_ids);
    else
        v_found := array(
            select distinct c.user_id from two_tower.user_changes c
            where p_after is null or c.user_id > p_after
            order by c.user_id limit v_limit
        );
        -- Everybody comes before anybody, who are found behind it in the same round.
        if c_somebody = any (v_found) then
            v_found := array[c_somebody];
        end if;
        last_id := v_found[cardinality(v_found)];
        v_ids := case when v_found = '{}' then '{}' else two_tower.try_lock_changes('user', v_found) end;
        if v_ids <> '{}' then
            delete from two_tower.user_changes c where c.user_id = any (v_ids);
            if c_somebody = any (v_ids) then
                insert into two_tower.user_changes (user_id)
                select d.user_id from public.user_video_decisions d where d.user_id <> c_somebody
                union select f.user_id from two_tower.user_features f where f.user_id <> c_somebody
                union select e.user_id from two_tower.user_embeddings e where e.user_id <> c_somebody
                union select u.id from unnest(two_tower.live_versions()) as v (version) cross join lateral two_tower.users_by_profile(v.version) as u (id);
            end if;
            result := two_tower.refresh_set('user', v_ids);
            v_users := cardinality(v_ids);
        end if;
    end if;
    result := coalesce(result, '{"vectors": 0, "failed": 0}') || jsonb_build_object('users', v_users, 'videos', v_videos);
end
$func$;

comment on function two_tower.refresh_batch(uuid, int) is
'Refreshes one batch of changed videos, or of collected users after p_after in id order, of p_limit or as many as there is room for; '
'counts, and the last user looked at';
