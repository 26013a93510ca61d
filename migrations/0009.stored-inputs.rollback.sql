do $covering$
begin
    if exists (
        select from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
        where i.indrelid = 'public.user_video_decisions'::regclass and c.relname = 'user_video_decisions_pkey' and i.indnatts > i.indnkeyatts
    ) and exists (select from two_tower.created_objects where kind = 'table' and name = 'public.user_video_decisions')
    then
        alter table public.user_video_decisions
        drop constraint user_video_decisions_pkey, add constraint user_video_decisions_pkey primary key (user_id, video_id);
    end if;
end
$covering$;

do $unattached$
declare
    v_table text;
begin
    for v_table in
        select c.oid::regclass::text from pg_catalog.pg_class c
        where c.relnamespace = 'two_tower'::regnamespace and c.relkind = 'r' and not c.relispartition
            and c.relname ~ '^user_embeddings_[0-9]+$'
    loop
        execute 'alter table ' || v_table || ' drop column input';
    end loop;
end
$unattached$;

alter table two_tower.user_embeddings drop column input;
