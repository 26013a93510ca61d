-- A moment as embeddings, payloads, popularity and the trainer read it: from 1900 to 2100, where differences, vectors and Python's dates
-- are defined. What lies outside is taken for the nearer end. Times without a zone are in UTC, whatever zone the session has. As
-- decision_label() otherwise.
create or replace function two_tower.time_of(p_value timestamptz) returns timestamptz
language sql immutable parallel safe security invoker
return case
    when p_value < timestamptz '1900-01-01 00:00+00' then timestamptz '1900-01-01 00:00+00'
    when p_value > timestamptz '2100-01-01 00:00+00' then timestamptz '2100-01-01 00:00+00'
    else p_value
end;

create or replace function two_tower.time_of(p_value timestamp) returns timestamptz
language sql immutable parallel safe security invoker
return case
    when p_value < timestamp '1900-01-01 00:00' then timestamptz '1900-01-01 00:00+00'
    when p_value > timestamp '2100-01-01 00:00' then timestamptz '2100-01-01 00:00+00'
    else p_value at time zone 'UTC'
end;

create or replace function two_tower.time_of(p_value date) returns timestamptz
language sql immutable parallel safe security invoker
return case
    when p_value < date '1900-01-01' then timestamptz '1900-01-01 00:00+00'
    when p_value > date '2100-01-01' then timestamptz '2100-01-01 00:00+00'
    else p_value::timestamp at time zone 'UTC'
end;

-- Day 31 of a month of 30 is the first of the next: no text that looks like a date raises.
create or replace function two_tower.time_of(p_value text) returns timestamptz
language sql immutable parallel safe security invoker
return (
    select two_tower.time_of(
        (make_date(greatest(f.part[1]::int, 1), f.part[2]::int, 1) + (f.part[3]::int - 1))::timestamp
        + make_interval(
            hours => coalesce(f.part[4]::int, 0) - coalesce((f.part[7] || f.part[8])::int, 0),
            mins => coalesce(f.part[5]::int, 0) - coalesce((f.part[7] || f.part[9])::int, 0),
            secs => coalesce(f.part[6]::double precision, 0)
        )
    )
    from regexp_match(
        p_value collate "C",
        '^ *([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])'
        '(?:[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9](?:[.][0-9]{1,9})?))? ?'
        '(?:[Zz]|([+-])([01][0-9])(?::?([0-5][0-9]))?)?)? *$'
    ) as f (part)
);

create or replace function two_tower.time_of(p_value anyelement) returns timestamptz
language sql stable parallel safe security invoker
as $func$ select two_tower.time_of(p_value::pg_catalog.text) $func$;

comment on function two_tower.time_of(timestamptz) is 'The moment, or the nearer of 1900-01-01 and 2100-01-01 UTC; null stays null';
comment on function two_tower.time_of(timestamp) is 'The same of a time without a zone, which is taken for one in UTC';
comment on function two_tower.time_of(date) is 'The same of the beginning of a day in UTC';
comment on function two_tower.time_of(text) is
'The same of a date or time written as in ISO 8601, in UTC without a zone; null for any other text';
comment on function two_tower.time_of(anyelement) is 'The same of what else can be written as text';
