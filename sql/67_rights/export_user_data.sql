-- SECURITY DEFINER: users may not read what was shown to them, nor what they have chosen; of the caller's own rows alone, or of a user's for
-- service_role.
--
-- Of the application's tables, only the columns that this project reads: what else a row holds is the application's to tell.
create or replace function public.export_user_data(p_user_id uuid default null) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_user_id constant uuid := two_tower.acting_user(p_user_id);
begin
    return jsonb_build_object(
        'user_id', c_user_id,
        'choices', (
            select to_jsonb(c) - 'user_id' from two_tower.user_choices c where c.user_id = c_user_id
        ),
        'decisions', (
            select coalesce(jsonb_agg(to_jsonb(d) order by d.created_at, d.video_id), '[]')
            from (select 1::real as weight) as absent
            cross join lateral (
                select d.video_id, two_tower.text_of(d.decision_type) as decision_type, two_tower.time_of(d.created_at) as created_at,
                    two_tower.weight_of(weight) as weight
                from public.user_video_decisions d where d.user_id = c_user_id
            ) as d
        ),
        'reviews', (
            select coalesce(jsonb_agg(to_jsonb(r) - 'reviewer_id' - 'user_id' order by r.created_at, r.video_id), '[]')
            from two_tower.reviews r where r.reviewer_id = c_user_id
        ),
        'impressions', (
            select coalesce(jsonb_agg(to_jsonb(i) - 'user_id' order by i.shown_at, i.list_id, i.rank), '[]')
            from two_tower.impressions i where i.user_id = c_user_id
        ),
        'features', (
            select to_jsonb(f) - 'user_id' from two_tower.user_features f where f.user_id = c_user_id
        ),
        'vectors', (
            select coalesce(
                jsonb_agg(
                    jsonb_build_object('model_version', e.model_version, 'embedding', e.embedding::text, 'updated_at', e.updated_at)
                    order by e.model_version
                ), '[]'
            )
            from two_tower.user_embeddings e where e.user_id = c_user_id
        )
    );
end
$func$;

comment on function public.export_user_data(uuid) is
'All data about the caller, or about the user or reviewer on whose behalf service_role calls, as JSON: choices, decisions, '
'reviews, what was shown, features and vectors';
