drop table two_tower.model_events;

drop table two_tower.model_inputs;

drop table two_tower.vocabularies;

drop table two_tower.neighbour_lists;

drop table two_tower.model_weights;

drop table two_tower.model_segments;

drop table two_tower.model_documents;

drop table two_tower.model_files;

drop table two_tower.model_versions;

drop table two_tower.settings;
