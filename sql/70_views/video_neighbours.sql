create or replace view two_tower.video_neighbours with (security_invoker = true) as
select l.model_version, l.video_id, n.neighbour_id, n.weight
from two_tower.neighbour_lists l
cross join lateral unnest(l.neighbour_ids, l.weights) as n (neighbour_id, weight);

comment on view two_tower.video_neighbours is
'What a like of video_id adds to the score of neighbour_id, by version: two_tower.neighbour_lists, which lists read, a row for each pair';
