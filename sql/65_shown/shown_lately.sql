-- SECURITY DEFINER: users may not read impressions; these are the caller's own.
create or replace function two_tower.shown_lately() returns uuid[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    -- What one may leave out besides, list_candidates() says.
    c_most constant int := 15000;
    c_since constant timestamptz := now() - two_tower.model_setting('shown_again_after_hours') * interval '1 hour';
begin
    perform two_tower.hold_viewer(auth.uid());
    return array(
        select i.video_id from two_tower.impressions i
        where i.user_id = auth.uid() and i.shown_at > c_since
        -- As the index has them.
        order by i.shown_at desc
        limit c_most
    );
end
$func$;

comment on function two_tower.shown_lately() is
'What the caller was shown within the setting shown_again_after_hours, the last 15000 times; the caller''s other pages wait until the end '
'of the transaction';
