create or replace function two_tower.with_few_likers(p_video_ids uuid[]) returns uuid[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    c_least constant double precision := two_tower.model_setting('least_likers');
begin
    return array(
        select i.id from unnest(p_video_ids) as i (id)
        where not exists (select from two_tower.video_popularity p where p.video_id = i.id and p.likers >= c_least)
    );
end
$func$;

comment on function two_tower.with_few_likers(uuid[]) is
'Those of these videos that fewer people like than the setting least_likers, by the last count of popularity: lists for visitors reveal '
'nothing learnt from their likers';
