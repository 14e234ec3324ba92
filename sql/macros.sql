-- What several models say alike: functions of the engine that writes tables (`store.connect`). No
-- view may call one, for `warehouse.duckdb` does not have them.

-- Text without the white space around it, every kind of Unicode's included; null where none is left
-- (facts/reconciliation.md, section 3). Nearly all of it needs nothing taken off, which is seen
-- first: a replacement by pattern costs ten times as much.
create or replace macro trimmed(words) as
    case
        when regexp_full_match(words, '[!-~]([ -~]*[!-~])?') then words
        else nullif(
            regexp_replace(
                words, '^[\s\x0b\x1c-\x1f\x{85}\p{Z}]+|[\s\x0b\x1c-\x1f\x{85}\p{Z}]+$', '', 'g'
            ), ''
        )
    end;

-- An amount for a person, in major units: EUR 1,234.50. `places` is how many digits the currency
-- has after the point, null where that is not known (staging.currencies).
create or replace macro in_words(minor, currency, places) as
    upper(currency) || case when minor < 0 then ' -' else ' ' end
    || case
        when places > 0
            then format('{:,}', abs(minor) // (10 ** places)::bigint) || '.'
                || lpad((abs(minor) % (10 ** places)::bigint)::varchar, places, '0')
        when places = 0 then format('{:,}', abs(minor))
        else format('{:,}', abs(minor)) || ' minor units'
    end;

-- The first day of the billing cycle that a day lies in, and of the next: cycles start on the day
-- `anchor_day` of a month, or on its last day where the month is shorter.
create or replace macro anchor_date(in_month, anchor_day) as
    least(
        date_trunc('month', in_month)::date + (anchor_day - 1)::integer,
        last_day(in_month)
    );

create or replace macro cycle_start(on_date, anchor_day) as
    case
        when on_date >= anchor_date(on_date, anchor_day) then anchor_date(on_date, anchor_day)
        else anchor_date(date_trunc('month', on_date) - interval 1 month, anchor_day)
    end;

create or replace macro cycle_end(on_date, anchor_day) as
    case
        when on_date < anchor_date(on_date, anchor_day) then anchor_date(on_date, anchor_day)
        else anchor_date(date_trunc('month', on_date) + interval 1 month, anchor_day)
    end;

-- The last day of the run of sixteen days that a day lies in (`marts.spend_habits`): the same runs
-- as those of a pack, so that a run is one file.
create or replace macro run_end(on_date) as
    on_date + 15 - (on_date - date '0001-01-01' + 1)::integer % 16;

-- The last day of the newest run that is older than eight weeks before a day, and complete.
create or replace macro newest_run_end(before_date, history_until) as
    run_end(least(before_date - 57, history_until) + 1) - 16;

-- Whether a subject is among those of a turn, of so many turns (CONTRIBUTING.md). Of two unsigned
-- numbers, or the engine would take the remainder in 128 bits.
create or replace macro in_slice(subject_id, slice, slice_count) as
    hash(subject_id) % slice_count::ubigint = slice::ubigint;

-- The place of a version among those fetched of one Stripe object, 1 being the one that counts: the
-- API's before a CSV export's, then the latest fetched.
create or replace macro version_rank(id, origin, arrived_at, record_sha256) as
    row_number() over (
        partition by id
        order by case origin when 'api' then 0 else 1 end, arrived_at desc, record_sha256
    );

-- The place of a delivery among those of one thing, 1 being the one that counts: the latest
-- arrival, and within a file the last line. Files of one night arrive in the order of their names.
create or replace macro delivery_rank(id, arrived_at, source_object, source_line) as
    row_number() over (partition by id order by arrived_at desc, source_object, source_line desc);

-- Of each id of a CTE, which is named in quotes, the row whose rank is 1. For millions of rows of
-- which most ids have one: only the others are put in order, which are found by the ids' hashes.
-- A CTE, not a table, for what a model reads stands in its `from`; a linter takes it for unused,
-- hence noqa.
create or replace macro newest_of(cte, id, rank) as table
    with hashed as not materialized (
        select *, hash(id) as id_hash from query_table(cte)
    ),

    repeated as (
        select id_hash from hashed group by 1 having count(*) > 1
    )

    select hashed.* from hashed anti join repeated using (id_hash)  -- noqa: AM04
    union all by name
    (select hashed.* from hashed semi join repeated using (id_hash) qualify rank = 1);

-- What an alert is of, in one text, and its id, the same for ever.
create or replace macro spend_identity(kind, workspace_id, scope, subject_id, usage_date) as
    concat_ws(chr(31), kind, coalesce(workspace_id, ''), scope, subject_id, usage_date);

create or replace macro alert_id_of(identity) as 'alert_' || substr(sha256(identity), 1, 16);
