-- What the towers read, in order: the one list in SQL of what py/two_tower/features.py lays out. Registration holds every feature schema to
-- it, so what the two say differently registers nowhere.
--
-- kind is what contents_of() calls such a key, or video for the video's own id, and names the vocabulary. many: a payload has a list of
-- such keys. Keys of content_vector are the numbers of content_vectors, each with the name of its encoder: clip:1, clip:2, … The segment
-- numeric comes first and is left out: input_numbers() has it. Both are bodies that the planner puts in place of the call.
create or replace function two_tower.input_segments() returns table (tower text, place int, segment text, kind text, many boolean)
language sql immutable parallel safe security invoker
as $func$
    values
    ('user', 1, 'liked_tags', 'tag', true),
    ('user', 2, 'liked_performers', 'performer', true),
    ('user', 3, 'liked_makers', 'maker', true),
    ('user', 4, 'liked_labels', 'label', true),
    ('user', 5, 'liked_series', 'series', true),
    ('user', 6, 'liked_sources', 'source', true),
    ('user', 7, 'liked_video_ids', 'video', true),
    ('user', 8, 'noped_video_ids', 'video', true),
    ('item', 1, 'tags', 'tag', true),
    ('item', 2, 'performers', 'performer', true),
    ('item', 3, 'maker', 'maker', false),
    ('item', 4, 'label', 'label', false),
    ('item', 5, 'series', 'series', false),
    ('item', 6, 'source', 'source', false),
    ('item', 7, 'title_words', 'title_word', true),
    ('item', 8, 'description_words', 'description_word', true),
    ('item', 9, 'content_vectors', 'content_vector', true),
    ('item', 10, 'id', 'video', false)
$func$;

create or replace function two_tower.input_numbers() returns table (tower text, place int, name text)
language sql immutable parallel safe security invoker
as $func$
    values
    ('user', 1, 'like_count'),
    ('user', 2, 'nope_count'),
    ('user', 3, 'price_sum'),
    ('user', 4, 'priced_count'),
    ('item', 1, 'price'),
    ('item', 2, 'duration_seconds'),
    ('item', 3, 'released_days')
$func$;

comment on function two_tower.input_segments() is
'The segments of each tower''s input after the numbers, in order, with the kind of their keys';
comment on function two_tower.input_numbers() is
'The numbers that come first in the input of each tower; place is the position, from 1';
