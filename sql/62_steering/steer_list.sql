-- Applies an operator's steering to a list: promotions move videos, freshness moves new ones, pins take a place, and exploration gives
-- some of the other places to videos with few impressions. Without any of it, the list is that of list_candidates().
--
-- What moves a video is a factor on its rank, so that it is the same in a list by taste as in one by popularity: at rank 30, one that is boosted
-- by 3 stands where the tenth stood. So a longer list is asked for, as long as the factors can reach.
--
-- A place is explored by a throw of a coin, and has one video of the pool, in an order that is another for every user and day. The coin
-- and the order are hashes of user, day, place and what is excluded: the same question has the same answer, and each page of next_videos()
-- is drawn by itself. With the same coins on every page, a video whose place was explored on the first would lose it on each that follows.
-- A video of the pool thus stands at a place with the probability share / pool, and what stood there with 1 - share; the pool is without what
-- the list holds, so there is no other way.
--
-- SECURITY DEFINER: it reads promotions, the pool and the caller's decisions for whoever asks for a list. A login of one's own can call it, and
-- list_candidates() checks what is asked.
create or replace function two_tower.steer_list(p_question two_tower.list_question, p_limit int)
returns table (video_id uuid, score real, rank int, reason text, model_version text, propensity real)
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = 'force_generic_plan'
as $func$
#variable_conflict use_column
declare
    -- Diversity compares all that it is asked for with each other.
    c_most constant int := case when (p_question).diversity > 0 then 100 else 2000 end;
    -- As require_candidates() has it.
    c_allowed constant int := case when (p_question).diversity > 0 then 2000 else 20000 end;
    -- Below that, a propensity may be less than log_shown() takes.
    c_least_share constant double precision := 0.001;
    v_half_life double precision := 0;
    v_share double precision := 0;
    v_promotions two_tower.promotions[];
    v_filter two_tower.video_filter;
    v_user_id uuid;
    v_start uuid[];
    v_known uuid[];
    v_seed text;
    v_ids uuid[];
    v_scores real[];
    v_reasons text[];
    v_version text;
begin
    -- What model_setting() checks takes longer than to see that there is nothing to check.
    if exists (
        select from two_tower.settings s where s.name in ('freshness_half_life_days', 'exploration_share') and s.value is distinct from '0'
    ) then
        v_half_life := two_tower.model_setting('freshness_half_life_days');
        v_share := two_tower.model_setting('exploration_share');
    end if;
    if (p_question).kind is distinct from 'own' or v_share < c_least_share then
        v_share := 0;
    end if;
    v_promotions := array(
        select p from two_tower.promotions p where p.starts_at <= now() and (p.ends_at <= now()) is not true order by p.id
    );
    if v_promotions = '{}' and v_half_life = 0 and v_share = 0 then
        return query
        select c.video_id, c.score, c.rank, c.reason, c.model_version, 1::real from two_tower.list_candidates(p_question, p_limit) c;
        return;
    end if;
    -- What the list starts from says which segment it is for, and with all that the user knows, what it must not have.
    if (p_question).kind = 'own' then
        v_user_id := two_tower.acting_user((p_question).user_id);
        select array_agg(d.video_id) filter (where d.label = 1), array_agg(d.video_id) into v_start, v_known
        from two_tower.given_decisions(v_user_id) d;
        if exists (select from two_tower.user_choices c where c.user_id = v_user_id and not c.personalised) then
            v_start := null;
        end if;
    else
        v_start := (p_question).liked || (p_question).video_id;
        v_known := v_start || (p_question).noped;
    end if;
    v_known := v_known || (p_question).excluded;
    v_promotions := array(
        select p from unnest(v_promotions) as p
        where p.segment is null or exists (
            select from unnest(v_start) as s (id)
            where (select f.passes from two_tower.passing(jsonb_populate_record(null::two_tower.video_filter, p.segment), s.id) as f (passes))
        )
        order by p.id
    );
    select array_agg(c.video_id order by c.rank), array_agg(c.score order by c.rank), array_agg(c.reason order by c.rank), min(c.model_version)
    into v_ids, v_scores, v_reasons, v_version
    from (
        select coalesce(max(p.strength) filter (where p.kind = 'boost'), 1) * coalesce(max(p.strength) filter (where p.kind = 'bury'), 1)
            * case when v_half_life > 0 then 2 else 1 end as reach,
            count(distinct p.video_id) filter (where p.kind = 'pin') as pins
        from unnest(v_promotions) as p
    ) as r
    cross join lateral two_tower.list_candidates(
        -- As many more as there are pins, for what is pinned beyond the end of the list leaves its place to another.
        p_question, least(c_allowed, greatest(p_limit + r.pins, least(c_most, ceil(p_limit * r.reach))))::int
    ) c;
    -- What list_candidates() has not chosen passes the same filter: with what the viewer never wants to see, and may not.
    if v_share > 0 or exists (select from unnest(v_promotions) as p where p.kind = 'pin') then
        v_filter := two_tower.compile_filter((p_question).filter, coalesce(v_user_id, auth.uid()));
    end if;
    -- A date would print as the session has it.
    if v_share > 0 then
        v_seed := concat_ws(
            ' ', v_user_id, (select max(e.drawn_on) - date '2000-01-01' from two_tower.exploration_pool e),
            -- In whatever order they are given, and however often.
            (
                select bit_xor(uuid_hash_extended(e.id, 0))
                from (select distinct x.id from unnest((p_question).excluded) as x (id) where x.id is not null) as e
            )
        );
    end if;
    return query
    with moves as materialized (
        select p.kind, p.strength, p.video_id, p.videos is not null as by_filter,
            jsonb_populate_record(null::two_tower.video_filter, p.videos) as filter
        from unnest(v_promotions) as p where p.kind <> 'pin'
    ),
    weighed as materialized (
        select c.id, c.n::int as n, case when c.reason not in ('popular', 'newest', 'trending') then c.score end as score, c.reason,
            coalesce(m.boost, 1) as boost, coalesce(m.bury, 1) as bury, coalesce(a.fresh, 1) as fresh
        from unnest(v_ids, v_scores, v_reasons) with ordinality as c (id, score, reason, n)
        cross join lateral (
            select max(s.strength) filter (where s.kind = 'boost') as boost, max(s.strength) filter (where s.kind = 'bury') as bury
            from moves s
            where s.video_id = c.id or s.by_filter and (select f.passes from two_tower.passing(s.filter, c.id) as f (passes))
        ) as m
        left join lateral (
            -- The exponent is bounded where its power has a value.
            select 1 + 0.5 ^ least(greatest(extract(epoch from now() - two_tower.time_of(v.published_at)) / 86400 / v_half_life, 0), 120) as fresh
            from public.videos v where v.id = c.id and v_half_life > 0
        ) as a on true
    ),
    moved as materialized (
        select w.id, w.n, w.score, w.reason, w.boost, w.bury, w.fresh,
            row_number() over (order by w.n * w.bury / (w.boost * w.fresh), w.n)::int as place
        from weighed w
    ),
    pins as materialized (
        -- No two at one place: the next one has the next.
        select k.id, (k.n + max(k.rank - k.n) over (order by k.n))::int as place
        from (
            select p.id, p.rank, row_number() over (order by p.rank, p.id) as n
            from (
                select p.video_id as id, min(p.rank) as rank from unnest(v_promotions) as p where p.kind = 'pin' group by p.video_id
            ) as p
            where p.id not in (select k.id from unnest(v_known) as k (id) where k.id is not null)
                and (select true from two_tower.visible_videos v where v.id = p.id)
                and (v_filter is null or (select f.passes from two_tower.passing(v_filter, p.id) as f (passes)))
        ) as k
    ),
    listed as materialized (
        -- Where nothing is left for the places between pins, these move up.
        select s.place, m.id, m.score,
            case
                when m.boost > m.bury and m.place < m.n then 'boosted'
                when m.bury > m.boost and m.place > m.n then 'buried'
                -- Younger than the half-life.
                when m.fresh > 1.5 and m.place < m.n then 'fresh'
                else m.reason
            end as reason
        from (
            select g.place, row_number() over (order by g.place) as n
            from generate_series(1, p_limit + (select count(*) from pins)) as g (place) where g.place not in (select p.place from pins p)
        ) as s
        join (
            select m.*, row_number() over (order by m.place) as left_over from moved m where m.id not in (select p.id from pins p)
        ) as m on m.left_over = s.n
        union all
        select p.place, p.id, null, 'pinned' from pins p
        order by place
        limit p_limit
    ),
    pool as materialized (
        select e.video_id as id, row_number() over (order by hashtextextended(v_seed || e.video_id, 0), e.video_id) as place,
            count(*) over () as size
        from two_tower.exploration_pool e
        where v_share > 0
            and e.video_id not in (select k.id from unnest(v_known) as k (id) where k.id is not null)
            and e.video_id not in (select l.id from listed l)
            and (select true from two_tower.visible_videos v where v.id = e.video_id)
            and (v_filter is null or (select f.passes from two_tower.passing(v_filter, e.video_id) as f (passes)))
    ),
    thrown as (
        select l.place, l.id, l.score, l.reason, o.id as other, o.size,
            -- 53 bits of it, as a number from 0 to 1.
            (hashtextextended(v_seed || ' ' || l.place, 1) & 9007199254740991) / 9007199254740992.0::double precision < v_share as explored
        from listed l
        left join pool o on o.place = l.place and l.reason <> 'pinned'
    )
    select case when t.other is not null and t.explored then t.other else t.id end,
        case when t.other is null or not t.explored then t.score end,
        row_number() over (order by t.place)::int,
        case when t.other is not null and t.explored then 'explored' else t.reason end,
        v_version,
        (case when t.other is null then 1 when t.explored then v_share / t.size else 1 - v_share end)::real
    from thrown t
    order by t.place;
end
$func$;

comment on function two_tower.steer_list(two_tower.list_question, int) is
'The result of list_candidates(), moved by promotions, freshness and exploration. The reason is what moved a video, the score is null if '
'the video is not there for its score, and the propensity is the probability of its place';
