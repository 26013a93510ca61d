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
        -- Into the table that is not attached yet. Afterwards refreshes and the pass over changes write it. Refreshes do not,
        -- so the locks are others than theirs.
        if v_model.attached_at is not null then
            return;
        end if;
        execute format(
            'select array(select v.id from public.videos v where ($1 is null or v.id > $1) '
            'and not exists (select from two_tower.video_embeddings_%1$s e where e.model_version = $2 and e.video_id = v.id) '
            'and not exists (select from two_tower.change_failures f where f.kind = ''video'' and f.id = v.id) '
            'order by v.id limit $3)', v_model.number
        ) into v_found using p_after, p_version, v_limit;
        v_ids := case when v_found = '{}' then '{}' else two_tower.try_lock_changes('backfill', v_found) end;
        if v_ids <> '{}' then
            execute format(
                'with placed as (insert into two_tower.video_embeddings_%1$s (model_version, video_id, embedding, placed) '
                'select $1, c.video_id, c.embedding, c.embedding operator(extensions.<>) $4 from two_tower.compute_videos($2, $1) c on conflict do nothing) '
                'insert into two_tower.video_tastes_%1$s (model_version, video_id, liked, noped) '
                'select $1, c.video_id, c.liked, c.noped from two_tower.compute_tastes($2, $1) c where $3 on conflict do nothing',
                v_model.number
            ) using p_version, v_ids, v_model.user_engine = 'sql', two_tower.place_of_the_unknown(p_version);
        end if;
    elsif p_kind = 'change' then
        -- A pass over all: videos that changed, came or went between their embedding and the attaching.
        v_found := array(
            select k.id
            from (
                select v.id from public.videos v union select e.video_id from two_tower.video_embeddings e where e.model_version = p_version
            ) as k (id)
            where (p_after is null or k.id > p_after)
                and not exists (select from two_tower.change_failures f where f.kind = 'video' and f.id = k.id)
            order by k.id limit v_limit
        );
        v_ids := v_found;
        perform two_tower.lock_changes('video', v_ids);
        perform two_tower.refresh_videos(v_ids, array[p_version]);
        if v_ids = '{}' then
            update two_tower.model_versions set checked_at = clock_timestamp() where version = p_version and checked_at is null;
        end if;
    elsif p_kind = 'user' then
        v_found := array(
            (
                select distinct d.user_id from public.user_video_decisions d
                where (p_after is null or d.user_id > p_after) and two_tower.decision_label(d.decision_type) = 1
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
        raise exception 'there is nothing called % to backfill', p_kind using errcode = '22023', hint = 'video, change or user.';
    end if;
    last_id := v_found[cardinality(v_found)];
    seen := cardinality(v_found);
    done := cardinality(v_ids);
end
$func$;

comment on function two_tower.backfill_batch(text, text, uuid, int) is
'Embeds the next rows after p_after that a version lacks; the last one seen (null at the end), how many were seen, how many were free';
