drop table two_tower.experiments;
