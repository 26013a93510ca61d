-- Without a pinned path: the application's triggers on its decisions run under the caller's, as when the caller decides. So every name here is
-- qualified, operators included.
--
-- As the caller, whom the application's policies bind. What the caller has decided on before stays, so a session that is claimed again adds
-- nothing.
create or replace function public.claim_session(liked uuid[], noped uuid[] default '{}') returns int
language plpgsql volatile security invoker
as $func$
declare
    v_count int;
    v_nopes int;
begin
    perform two_tower.require_primary('claim_session()');
    if auth.uid() is null then
        raise exception 'not signed in' using errcode = '28000';
    end if;
    perform two_tower.require_session(liked, noped);
    -- Likes first, so that of a video in both the like counts. Words without a type take that of the column, whatever it is.
    insert into public.user_video_decisions (user_id, video_id, decision_type)
    select auth.uid(), v.id, 'like'
    from public.videos v where v.id operator(pg_catalog.=) any (liked)
    order by v.id
    on conflict do nothing;
    get diagnostics v_count = row_count;
    insert into public.user_video_decisions (user_id, video_id, decision_type)
    select auth.uid(), v.id, 'nope'
    from public.videos v where v.id operator(pg_catalog.=) any (noped)
    order by v.id
    on conflict do nothing;
    get diagnostics v_nopes = row_count;
    return v_count operator(pg_catalog.+) v_nopes;
end
$func$;

comment on function public.claim_session(uuid[], uuid[]) is
'Turns a visitor''s likes and nopes into decisions of the caller, except on videos already decided on; how many. At most 500 in both';
