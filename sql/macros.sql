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
