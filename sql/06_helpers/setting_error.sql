-- The one place that defines valid settings: invalid values are refused when set, so readers need not check.
create or replace function two_tower.setting_error(p_name text, p_value jsonb, p_what text default 'setting ') returns text
language plpgsql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return (
        select format(
            'the %s must be %s, and is %s', p_what || p_name,
            case r.kind
                when 'engine' then '"auto", "sql" or "onnxruntime"'
                when 'addresses' then '"as_written", "normalised" or "normalised_lower_case"' when 'boolean' then 'true or false'
                when 'whole' then format('a whole number from %s to %s', r.least, r.most) else format('a number from %s to %s', r.least, r.most)
            end,
            coalesce(case when length(p_value::text) <= 60 then p_value::text else left(p_value::text, 60) || '…' end, 'missing')
        )
        from (values
            ('inference_engine', 'engine', null::numeric, null::numeric),
            ('product_urls', 'addresses', null, null),
            ('popularity_half_life_days', 'number', 0.001, 1000000),
            ('most_decisions', 'whole', 0, 1000000000),
            ('least_likers', 'whole', 1, 1000000),
            ('model_max_bytes', 'number', 0, 1073741823),
            -- A limit out of reach is one: it lets no model pass, or every one.
            ('gate_max_drop', 'number', -1000, 1000),
            ('gate_over_popularity', 'number', -1000, 1000),
            ('gate_min_recall_at_20', 'number', -1000, 1000),
            ('gate_min_ndcg_at_20', 'number', -1000, 1000),
            ('gate_min_recall', 'number', -1000, 1000),
            ('search_min_recall', 'number', -1000, 1000),
            ('gate_max_distance', 'number', -1000, 1000),
            ('gate_max_replay_drop', 'number', -1000, 1000),
            ('gate_sample', 'whole', 1, 1000000),
            ('impressions_kept_days', 'whole', 1, 36500),
            ('shown_again_after_hours', 'number', 0, 876000),
            ('freshness_half_life_days', 'number', 0, 36500),
            ('exploration_share', 'number', 0, 0.5),
            ('shown_per_day', 'whole', 200, 1000000),
            ('status_max_lag_seconds', 'number', 0, 1000000000),
            ('status_expects_jobs', 'boolean', null, null)
        ) as r (name, kind, least, most)
        where r.name = p_name and case
            when p_value is null then true
            when r.kind = 'engine' then p_value not in ('"auto"', '"sql"', '"onnxruntime"')
            when r.kind = 'addresses' then p_value not in ('"as_written"', '"normalised"', '"normalised_lower_case"')
            when r.kind = 'boolean' then jsonb_typeof(p_value) <> 'boolean'
            when jsonb_typeof(p_value) <> 'number' then true
            else p_value::numeric not between r.least and r.most or r.kind = 'whole' and p_value::numeric <> trunc(p_value::numeric)
        end
    );
end
$func$;

comment on function two_tower.setting_error(text, jsonb, text) is
'What is wrong with a value of a setting, in a sentence that says what is allowed; null if nothing is, or there is no such setting';
