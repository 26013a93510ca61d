create or replace view two_tower.video_attributes with (security_invoker = true) as
select v.id as video_id, a.kind, a.key
from public.videos v cross join lateral two_tower.contents_of(v.id) as a;

comment on view two_tower.video_attributes is
'A row for each attribute key of a video, by kind: tag, performer, maker, label, series, source, title_word, description_word';
