-- Granted to nobody: only the owner may set what runs as the owner.
create or replace function two_tower.set_eligible_when(condition text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if btrim(condition) = '' then
        raise exception 'the condition is empty' using errcode = '22023',
            hint = 'Say to whom a video v may be shown, or null for no condition, such as: select two_tower.set_eligible_when('
                '''v.source <> ''''adult'''' or exists (select from public.profiles p where p.user_id = viewer_id and p.adult)'').';
    end if;
    begin
        perform two_tower.compile_eligible(condition);
        -- A condition that compiles may still fail on a row: for a visitor, or for a user.
        perform count(*)
        from (select null::uuid as id union all (select a.user_id from two_tower.accounts() a limit 1)) as viewer
        cross join public.videos v
        cross join lateral two_tower.eligible(viewer.id, v.id);
    exception when others then
        raise exception 'nobody can be shown videos by that condition: %', sqlerrm using errcode = '22023',
            hint = 'Write a condition on the columns of public.videos v and on viewer_id, the id of who asks (null: a visitor), with other '
                'names qualified.';
    end;
    update two_tower.catalogue_rule r set eligible_when = condition where r.one;
end
$func$;

comment on function two_tower.set_eligible_when(text) is
'Sets which videos may be shown to whom, in any list, as a condition on public.videos v and viewer_id (null for a visitor); null removes '
'it. Only for the owner. 22023 if it does not compile';
