-- What every list reads to know what may be shown. It runs as the owner, whatever policies the application has on its videos; lists for
-- clients read the videos as the client besides.
--
-- The condition is compiled: it depends on the columns that it names, so that whoever drops one is told. A view that is there stays: what
-- the owner wrote is not run by whoever migrates.
do $visible$
begin
    if to_regclass('two_tower.visible_videos') is null then
        execute format(
            'create view two_tower.visible_videos as select v.id from public.videos v where (%s)',
            (select r.visible_when from two_tower.catalogue_rule r)
        );
    end if;
end
$visible$;

comment on view two_tower.visible_videos is
'The videos that may be shown; two_tower.set_visible_when() sets the condition. To drop or retype a column that the condition names: '
'select two_tower.set_visible_when(''true''), change the column, and set the condition again. Do not drop this view';
