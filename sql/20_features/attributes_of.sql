-- A video's attributes, by kind: the one list from which users are counted and the towers get inputs. Names are compared byte
-- by byte, whatever their columns' types and collations treat as equal.
-- A body of text without a set clause, which the planner puts in place of the call; qualified throughout. A view of the columns themselves
-- would keep the application from changing them.
create or replace function two_tower.attributes_of(p_video_id uuid) returns table (kind text, key text)
language sql stable parallel safe security invoker
as $func$
    select 'tag', t.tag_id::pg_catalog.text from public.video_tags t where t.video_id operator(pg_catalog.=) p_video_id
    union all
    select 'performer', p.performer_id::pg_catalog.text from public.video_performers p where p.video_id operator(pg_catalog.=) p_video_id
    union all
    select k.kind, k.key
    from public.videos v
    cross join lateral (values
        ('maker', two_tower.text_of(v.maker) collate "C"), ('label', two_tower.text_of(v.label)), ('series', two_tower.text_of(v.series)),
        ('source', two_tower.text_of(v.source))
    ) as k (kind, key)
    where v.id operator(pg_catalog.=) p_video_id and k.key operator(pg_catalog.<>) ''
$func$;

comment on function two_tower.attributes_of(uuid) is 'A row for each attribute key of a video, by kind';
