-- A backfill that has not come to its partitions is given up: the logic before this knows no such thing.
do $unattached$
declare
    v_table text;
begin
    for v_table in
        select c.oid::regclass::text from pg_catalog.pg_class c
        where c.relnamespace = 'two_tower'::regnamespace and c.relkind = 'r' and not c.relispartition
            and c.relname ~ '^(user|video)_embeddings_[0-9]+$'
    loop
        execute 'drop table ' || v_table;
    end loop;
end
$unattached$;

delete from two_tower.model_versions where state = 'staged' and attached_at is null;

delete from two_tower.settings
where name in ('model_max_bytes', 'gate_max_drop', 'gate_min_recall', 'gate_max_distance', 'gate_sample');

drop table two_tower.model_events;

alter table two_tower.model_versions drop column attached_at, drop column checked_at, drop column forced;
