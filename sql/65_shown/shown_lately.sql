-- SECURITY DEFINER: users may not read impressions; these are the caller's own.
create or replace function two_tower.shown_lately() returns uuid[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_since constant timestamptz := now() - two_tower.model_setting('shown_again_after_hours') * interval '1 hour';
begin
    perform two_tower.hold_viewer(auth.uid());
    return array(
        select distinct i.video_id from two_tower.impressions i
        where i.user_id = auth.uid() and i.shown_at > c_since
        limit 20000
    );
end
$func$;

comment on function two_tower.shown_lately() is
'What the caller was shown within the setting shown_again_after_hours; the caller''s other pages wait until the transaction ends';
