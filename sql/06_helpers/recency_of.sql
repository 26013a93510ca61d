-- In plpgsql as active_version().
create or replace function two_tower.recency_of(p_version text) returns double precision
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return coalesce((
        select (d.feature_schema #>> '{user,recency}')::double precision from two_tower.model_documents d where d.model_version = p_version
    ), 0);
end
$func$;

comment on function two_tower.recency_of(text) is
'The exponent by which a version weighs decisions, from the newest: 0 where all count the same, or there is no such version';
