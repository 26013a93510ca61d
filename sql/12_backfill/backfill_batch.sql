drop function if exists two_tower.backfill_batch(text, text, uuid, int);
-- SECURITY DEFINER: a procedure that commits cannot be one, so two_tower.backfill_model() leaves the work to this.
--
-- Several workers may call it at once: each takes the rows that no other holds. What a refresh has set aside is left to refreshes.
create or replace function two_tower.backfill_batch(
    p_version text, p_kind text, p_after uuid default null, p_limit int default 500, out last_id uuid, out seen int, out done int
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_model record;
    v_limit int := least(p_limit, two_tower.take_room(true));
    -- Not "p_after is null or", as two_tower.rebuild_batch().
    v_after uuid := coalesce(p_after, '00000000-0000-0000-0000-000000000000');
    v_found uuid[];
    v_ids uuid[];
begin
    if p_kind = 'video' then
        -- two_tower.attach_partitions() waits for batches under way, and those that come later find its work done.
        perform pg_advisory_xact_lock_shared(hashtextextended('two_tower.attach ' || p_version, 0));
    else
        perform two_tower.hold_versions('batch');
    end if;
    select m.number, m.state, m.attached_at, m.backfilled_at, m.user_engine into strict v_model from two_tower.model_versions m where m.version = p_version;
    if v_model.state not in ('staged', 'active', 'standby') then
        raise exception 'model % is %', p_version, v_model.state using errcode = '55000';
    end if;
    if p_kind <> 'video' and v_model.attached_at is null then
        raise exception 'the videos of model % are not embedded yet', p_version using errcode = '55000';
    end if;
    seen := 0;
    done := 0;
    if p_kind = 'video' then
        -- Into the table that is not attached yet; afterwards refreshes write it. The locks are theirs: a transaction that refreshed a
        -- change of its own holds them until it ends, and nobody sees the change before that.
        if v_model.attached_at is not null then
            return;
        end if;
        execute format(
            'select array(select v.id from public.videos v where v.id > $1 '
            'and not exists (select from two_tower.video_embeddings_%1$s e where e.model_version = $2 and e.video_id = v.id) '
            'and not exists (select from two_tower.change_failures f where f.kind = ''video'' and f.id = v.id) '
            'order by v.id limit $3)', v_model.number
        ) into v_found using v_after, p_version, v_limit;
        v_ids := case when v_found = '{}' then '{}' else two_tower.try_lock_changes('video', v_found) end;
        if v_ids <> '{}' then
            execute format(
                'with placed as (insert into two_tower.video_embeddings_%1$s (model_version, video_id, embedding, placed) '
                'select $1, c.video_id, c.embedding, c.embedding operator(extensions.<>) $4 from two_tower.compute_videos($2, $1) c on conflict do nothing) '
                'insert into two_tower.video_tastes_%1$s (model_version, video_id, liked, noped) '
                'select $1, c.video_id, c.liked, c.noped from two_tower.compute_tastes($2, $1) c where $3 on conflict do nothing',
                v_model.number
            ) using p_version, v_ids, v_model.user_engine = 'sql', two_tower.place_of_the_unknown(p_version);
        end if;
    elsif p_kind = 'user' then
        v_found := array(
            (
                select distinct d.user_id from public.user_video_decisions d
                where d.user_id > v_after and two_tower.decision_label(d.decision_type) = 1
                    and exists (select from public.videos v where v.id = d.video_id)
                    and not exists (select from two_tower.user_choices c where c.user_id = d.user_id and not c.personalised)
                    and not exists (select from two_tower.user_embeddings e where e.model_version = p_version and e.user_id = d.user_id)
                    and not exists (select from two_tower.change_failures c where c.kind = 'user' and c.id = d.user_id)
                order by d.user_id limit v_limit
            )
            union
            (
                select u.id from two_tower.users_by_profile(p_version, p_after, v_limit, true) as u (id)
            )
            order by user_id limit v_limit
        );
        v_ids := case when v_found = '{}' then '{}' else two_tower.try_lock_changes('user', v_found) end;
        if v_ids <> '{}' then
            perform two_tower.refresh_users(v_ids, array[p_version]);
        end if;
    else
        raise exception 'there is nothing called % to backfill', p_kind using errcode = '22023', hint = 'video or user.';
    end if;
    last_id := v_found[cardinality(v_found)];
    seen := cardinality(v_found);
    done := cardinality(v_ids);
end
$func$;

comment on function two_tower.backfill_batch(text, text, uuid, int) is
'Embeds the next rows after p_after that a version lacks; the last one seen (null at the end), how many were seen, how many were free';
