-- SECURITY DEFINER: statistics of columns are hidden from whom row level security restricts. Said are words for decisions, and nobody's.
create or replace function two_tower.unknown_decisions() returns text[]
language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
    select array_agg(v.word order by v.word)
    from pg_catalog.pg_stats s
    -- By way of text, since the array is of whatever type the column has.
    cross join lateral unnest(s.most_common_vals::text::text[]) as v (word)
    where s.schemaname = 'public' and s.tablename = 'user_video_decisions' and s.attname = 'decision_type' and not s.inherited
        and two_tower.label_of_word(v.word) is null
$func$;

comment on function two_tower.unknown_decisions() is
'Common values of decision_type, as of the last analyze, other than like, nope and skip, which count as nothing; null for none';
