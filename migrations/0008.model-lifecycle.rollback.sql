delete from two_tower.settings
where name in ('model_max_bytes', 'gate_max_drop', 'gate_min_recall', 'gate_max_distance', 'gate_sample');

drop table two_tower.model_events;

alter table two_tower.model_versions drop column attached_at, drop column checked_at, drop column forced;
