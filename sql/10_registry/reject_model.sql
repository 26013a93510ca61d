-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.reject_model(p_version text, p_reasons text[]) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    perform two_tower.require_model(p_version);
    perform set_config('two_tower.report', jsonb_build_object('reasons', to_jsonb(coalesce(p_reasons, '{}')))::text, true);
    update two_tower.model_versions set state = 'rejected' where version = p_version;
    perform set_config('two_tower.report', '', true);
end
$func$;

comment on function two_tower.reject_model(text, text[]) is
'Rejects a candidate for reasons that the gate does not know; they are kept';
