create or replace view public.user_embeddings with (security_invoker = true) as
select e.user_id, e.embedding, e.model_version, e.updated_at
from two_tower.user_embeddings e
where e.model_version = two_tower.active_version();

comment on view public.user_embeddings is 'User vectors of the active model version; a user sees the own one';

create or replace view public.video_embeddings with (security_invoker = true) as
select e.video_id, e.embedding, e.model_version, e.updated_at
from two_tower.video_embeddings e
where e.model_version = two_tower.active_version();

comment on view public.video_embeddings is 'Video vectors of the active model version';
