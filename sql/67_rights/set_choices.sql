-- SECURITY DEFINER: users may not write the table, where a row could be anything; this writes the caller's own, or a user's for service_role.
create or replace function public.set_choices(
    personalised boolean default null, trained_on boolean default null, never_makers text[] default null,
    never_tag_ids uuid[] default null, never_performer_ids uuid[] default null, p_user_id uuid default null
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
#variable_conflict use_column
declare
    c_most constant int := 100;
    c_user_id constant uuid := two_tower.acting_user(p_user_id);
    v_name text;
    v_choices jsonb;
begin
    perform two_tower.require_primary('set_choices()');
    select n.name into v_name
    from (values
        ('makers', cardinality(never_makers)), ('tags', cardinality(never_tag_ids)), ('performers', cardinality(never_performer_ids))
    ) as n (name, given)
    where n.given > c_most limit 1;
    if found then
        raise exception 'at most % % can be kept out of one''s lists', c_most, v_name using errcode = '22023';
    end if;
    if exists (select from unnest(set_choices.never_makers) as m (name) where octet_length(m.name) > 1024) then
        raise exception 'the name of a maker has 1,024 bytes at most' using errcode = '22023';
    end if;
    if not exists (select from auth.users u where u.id = c_user_id) then
        raise exception 'there is no user %', c_user_id using errcode = 'P0002';
    end if;
    insert into two_tower.user_choices as c (user_id, personalised, trained_on, never_makers, never_tag_ids, never_performer_ids)
    values (
        c_user_id, coalesce(set_choices.personalised, true), coalesce(set_choices.trained_on, true),
        array(select distinct m.name from unnest(set_choices.never_makers) as m (name) where m.name is not null),
        array(select distinct t.id from unnest(set_choices.never_tag_ids) as t (id) where t.id is not null),
        array(select distinct p.id from unnest(set_choices.never_performer_ids) as p (id) where p.id is not null)
    )
    on conflict (user_id) do update set
        personalised = coalesce(set_choices.personalised, c.personalised),
        trained_on = coalesce(set_choices.trained_on, c.trained_on),
        never_makers = case when set_choices.never_makers is null then c.never_makers else excluded.never_makers end,
        never_tag_ids = case when set_choices.never_tag_ids is null then c.never_tag_ids else excluded.never_tag_ids end,
        never_performer_ids = case when set_choices.never_performer_ids is null then c.never_performer_ids else excluded.never_performer_ids end,
        -- Who only asks changes nothing: lists from before a choice are told by it.
        updated_at = case
            when num_nonnulls(
                set_choices.personalised, set_choices.trained_on, set_choices.never_makers, set_choices.never_tag_ids,
                set_choices.never_performer_ids
            ) > 0 then now() else c.updated_at
        end
    returning to_jsonb(c) - 'user_id' - 'updated_at' into v_choices;
    return v_choices;
end
$func$;

comment on function public.set_choices(boolean, boolean, text[], uuid[], uuid[], uuid) is
'Sets choices of the caller, or of the user on whose behalf service_role calls: whether lists use the own decisions '
'(personalised), whether these count in training and popularity (trained_on), and the makers, tags and performers that no list may show. '
'Null leaves a choice as it is, an empty array removes it. Returns all choices';
