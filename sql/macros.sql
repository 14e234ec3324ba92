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
    upper(currency) || ' ' || case when minor < 0 then '-' else '' end
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
