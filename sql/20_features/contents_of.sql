-- What the item tower reads of a video, by kind: what it carries, and the words that describe it. Words place a video; no user is counted by them.
-- A body of text without a set clause, as attributes_of().
create or replace function two_tower.contents_of(p_video_id uuid) returns table (kind text, key text)
language sql stable parallel safe security invoker
as $func$
    select a.kind, a.key from two_tower.attributes_of(p_video_id) a
    union all
    select t.kind, w.word
    from public.videos v
    cross join lateral (values
        ('title_word', two_tower.text_of(v.title) collate "C"), ('description_word', two_tower.text_of(v.description))
    ) as t (kind, content)
    cross join lateral two_tower.words_of(t.content) as w (word)
    where v.id operator(pg_catalog.=) p_video_id
$func$;

comment on function two_tower.contents_of(uuid) is 'A row for each attribute key of a video, and for each word that describes it, by kind';
