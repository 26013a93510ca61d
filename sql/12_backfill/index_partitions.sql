-- SECURITY DEFINER: building an index takes the owner of the tables.
--
-- A transaction of its own: what comes after it, the attaching, may have to be tried again.
create or replace function two_tower.index_partitions(p_version text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- This many at one place do no harm. Up to this number, every query by vector can use the index, with or without placed.
    c_unplaced constant int := 100;
    v_unplaced int;
    v_number int;
    v_filled text;
    v_unordered text;
begin
    -- One of several workers builds it, the others wait.
    perform pg_advisory_xact_lock(hashtextextended('two_tower.attach ' || p_version, 0));
    select number into v_number from two_tower.model_versions where version = p_version and state = 'staged' and attached_at is null;
    v_filled := format('video_embeddings_%s', v_number);
    if v_number is null or to_regclass('two_tower.' || v_filled || '_hnsw') is not null then
        return false;
    end if;
    -- The graph is built in the order of the table. Users' vectors are zero in the last entry, where unpopular videos have most
    -- of their length; those go in last, or searches get lost among them (docs/experiments.md has the figures).
    v_unordered := v_filled || '_unordered';
    execute format('alter table two_tower.%I rename constraint %I to %I', v_filled, v_filled || '_pkey', v_unordered || '_pkey');
    execute format('alter table two_tower.%I rename to %I', v_filled, v_unordered);
    perform two_tower.create_partitions(p_version);
    execute format(
        'insert into two_tower.%I select * from two_tower.%I order by (embedding::real[])[128], video_id', v_filled, v_unordered
    );
    execute format('drop table two_tower.%I', v_unordered);
    execute format('select count(*) from (select from two_tower.%I where not placed limit %s) as u', v_filled, c_unplaced + 1) into v_unplaced;
    -- One index build over a full table is many times faster than inserting into an index.
    execute format(
        'create index %I on two_tower.%I using hnsw (embedding extensions.halfvec_cosine_ops) with (m = 24, ef_construction = 200) %s',
        v_filled || '_hnsw', v_filled, case when v_unplaced > c_unplaced then 'where placed' end
    );
    execute format('analyze two_tower.%I', v_filled);
    execute format('analyze two_tower.video_tastes_%s', v_number);
    return true;
end
$func$;

comment on function two_tower.index_partitions(text) is
'Orders and indexes the video vectors of a staged version, before it is attached; false if that is already done';
