drop table two_tower.shard_popularity;

drop table two_tower.shards;
