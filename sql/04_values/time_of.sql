-- A moment as embeddings, payloads, popularity and the trainer read it: from 1900 to 2100, where differences, vectors and Python's dates
-- are defined. What lies outside is taken for the nearer end. Times without a zone are in UTC, whatever zone the session has. As
-- text_of() otherwise.
do $old$
begin
    if to_regprocedure('two_tower.time_of(timestamptz)') is not null then
        -- It was compiled with what is dropped here; 05_application makes it anew.
        drop view if exists two_tower.visible_videos;
        drop function two_tower.time_of(timestamptz), two_tower.time_of(timestamp), two_tower.time_of(date), two_tower.time_of(text);
    end if;
end
$old$;

create or replace function two_tower.time_of(p_value timestamptz, p_own double precision) returns timestamptz
language sql immutable parallel safe security invoker
return case
    when p_value < timestamptz '1900-01-01 00:00+00' then timestamptz '1900-01-01 00:00+00'
    when p_value > timestamptz '2100-01-01 00:00+00' then timestamptz '2100-01-01 00:00+00'
    else p_value
end;

create or replace function two_tower.time_of(p_value timestamp, p_own double precision) returns timestamptz
language sql immutable parallel safe security invoker
return case
    when p_value < timestamp '1900-01-01 00:00' then timestamptz '1900-01-01 00:00+00'
    when p_value > timestamp '2100-01-01 00:00' then timestamptz '2100-01-01 00:00+00'
    else p_value at time zone 'UTC'
end;

create or replace function two_tower.time_of(p_value date, p_own double precision) returns timestamptz
language sql immutable parallel safe security invoker
return case
    when p_value < date '1900-01-01' then timestamptz '1900-01-01 00:00+00'
    when p_value > date '2100-01-01' then timestamptz '2100-01-01 00:00+00'
    else p_value::timestamp at time zone 'UTC'
end;

-- Day 31 of a month of 30 is the first of the next: no text that looks like a date raises. A pattern checks the text, and its parts are where
-- they are: to have the pattern find them takes twenty times as long.
create or replace function two_tower.time_of_word(p_word text) returns timestamptz
language sql immutable parallel safe security invoker
return (
    select two_tower.time_of(
        (make_date(greatest(left(f.word, 4)::int, 1), substr(f.word, 6, 2)::int, 1) + (substr(f.word, 9, 2)::int - 1))::timestamp
        + make_interval(
            hours => coalesce(nullif(substr(f.word, 12, 2), '')::int, 0) - coalesce(left(f.zone, 3)::int, 0),
            mins => coalesce(nullif(substr(f.word, 15, 2), '')::int, 0)
            - case when length(f.zone) > 3 then (left(f.zone, 1) || right(f.zone, 2))::int else 0 end,
            secs => case
                when substr(f.word, 17, 1) = ':' then substring(substr(f.word, 18) collate "C" from '^[0-9.]+')::double precision else 0
            end
        ),
        0::double precision
    )
    from (
        select w.word, substring(substr(w.word, 11) collate "C" from '[+-][0-9:]+$') as zone
        from (select btrim(p_word) as word) as w
        where w.word collate "C" ~ (
            '^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])'
            '(?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,9})?)? ?(?:[Zz]|[+-][01][0-9](?::?[0-5][0-9])?)?)?$'
        )
    ) as f
);

create or replace function two_tower.time_of(p_value anyelement, p_any int) returns timestamptz
language sql stable parallel safe security invoker
as $func$ select two_tower.time_of_word(pg_catalog.concat(p_value)) $func$;

create or replace function two_tower.time_of(p_value anyelement) returns timestamptz
language sql stable parallel safe security invoker
as $func$ select two_tower.time_of(p_value, 0) $func$;

comment on function two_tower.time_of(timestamptz, double precision) is 'two_tower.time_of() of a moment';
comment on function two_tower.time_of(timestamp, double precision) is
'two_tower.time_of() of a time without a zone, which is taken for one in UTC';
comment on function two_tower.time_of(date, double precision) is 'two_tower.time_of() of the beginning of a day in UTC';
comment on function two_tower.time_of_word(text) is
'two_tower.time_of() of a date or time written as in ISO 8601, in UTC without a zone; null for any other text';
comment on function two_tower.time_of(anyelement, int) is 'two_tower.time_of() of anything else';
comment on function two_tower.time_of(anyelement) is
'The time from a value of any type, or the nearer of 1900-01-01 and 2100-01-01 UTC; null if it has none';
