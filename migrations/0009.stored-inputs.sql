-- The encoded input of each user, beside the vector that was made of it.
-- depends: 0008.model-lifecycle

-- Null until the next refresh of the user. Packed as plpython/histories.py has it; input_hash is its sha256.
alter table two_tower.user_embeddings add column input bytea;

-- Tables of versions whose backfill is under way are not attached yet.
do $unattached$
declare
    v_table text;
begin
    for v_table in
        select c.oid::regclass::text from pg_catalog.pg_class c
        where c.relnamespace = 'two_tower'::regnamespace and c.relkind = 'r' and not c.relispartition
            and c.relname ~ '^user_embeddings_[0-9]+$'
    loop
        execute 'alter table ' || v_table || ' add column input bytea';
    end loop;
end
$unattached$;

-- A user's decisions lie all over the table. With what a refresh reads of them in the index, it need not go there. An adopted table
-- keeps the key it has, and so does one whose key others refer to.
do $covering$
begin
    if exists (select from two_tower.created_objects where kind = 'table' and name = 'public.user_video_decisions')
        and not exists (select from pg_catalog.pg_constraint where confrelid = 'public.user_video_decisions'::regclass)
    then
        alter table public.user_video_decisions
        drop constraint user_video_decisions_pkey,
        add constraint user_video_decisions_pkey primary key (user_id, video_id) include (decision_type, created_at);
    end if;
end
$covering$;
