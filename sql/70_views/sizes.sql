create or replace view two_tower.sizes with (security_invoker = true) as
select n.nspname || '.' || c.relname as relation, m.version as model_version, greatest(c.reltuples, 0)::bigint as rows_estimate,
    pg_table_size(c.oid) as table_bytes, pg_indexes_size(c.oid) as index_bytes
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join two_tower.model_versions m on n.nspname = 'two_tower' and c.relname ~ '^(user|video)_embeddings_[0-9]+$'
    and m.number = substring(c.relname from '[0-9]+$')::int
where c.relkind = 'r' and (
        n.nspname = 'two_tower'
        or n.nspname = 'public' and c.relname in (
            'videos', 'tags', 'performers', 'video_tags', 'video_performers', 'profiles', 'user_video_decisions', 'user_features'
        )
    );

comment on view two_tower.sizes is 'Bytes of each table, TOAST included, and of its indexes; vectors by model version';
