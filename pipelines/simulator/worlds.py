"""Worlds of many API keys at the grain of hours, made from a seed by DuckDB itself, with what was
planted in them.

For what needs volume: whether incidents are found, how soon, and whether their cause is named. The
gateway of `gateway.py` writes every request; here a row is what a key spent in an hour on a model,
in the columns of `marts.usage_quarter_hourly`. Every number is a function of the seed and of what
it is about (hashes, no generator with a state), so that the same seed gives the same rows.

What is assumed, and not measured on real keys: five families of keys, whose days differ by a factor
with a spread of 0.08 to 0.6; requests that are Poisson within it; credits a request that differ
from day to day with a spread of 0.05 to 0.35, and for good about once in 120 days with one of 0.4
(facts/detection.md, "Separate track").
"""

from datetime import date, timedelta

import duckdb

DAYS = 110  # of history in a world
EVALUATED_DAYS = 42  # the last ones, in which incidents begin

# What is planted, and the cause that is to be named.
CAUSES = {
    "leak": "more_requests",  # 5 to 100 times the requests from any hour on, 3 to 10 days
    "runaway": "more_requests",  # a loop of 2 to 12 hours at 20 to 200 times an hour's requests
    "creep": "more_requests",  # 4 to 8 % more requests each day, for 28 days
    "model_switch": "another_model",  # from a morning on, a model five times as dear
    "afternoon_switch": "another_model",  # the same at any hour of the day
    "longer_prompts": "dearer_requests",  # from a morning on, requests five times as long
    "new_key_leak": "new_key",  # a key of 3 to 10 days, 10 to 100 times
    "dormant_wake": "woken",  # after 35 to 70 days without a request
}
# What must stay silent: nothing, growth, month's ends, a new key, a step of 30 %, another mix.
BENIGN = ("none", "growth", "month_end", "new_key_ok", "step_30pct", "mix_shift")
# How many days after its onset an incident still counts as found; SpendBench's.
HIT_DAYS = {"leak": 3, "runaway": 1, "creep": 35, "new_key_leak": 3, "dormant_wake": 3}
OTHER_HIT_DAYS = 7

FAMILIES = """
    from (
        values
            ('prod', 0.12, 1.00, [1, 1.03, 1.05, 1.03, 1, 0.72, 0.66], 'daytime'),
            ('office', 0.20, 0.97, [1, 1.08, 1.1, 1.05, 0.95, 0.06, 0.04], 'office'),
            ('cron', 0.08, 1.00, [1, 1, 1, 1, 1, 1, 1], 'twice'),
            ('dev', 0.45, 0.60, [1, 1, 1, 1, 1, 0.3, 0.2], 'office'),
            ('bursty', 0.60, 0.95, [1, 1, 1, 1, 1, 0.9, 0.9], 'flat')
    ) as family (family, day_spread, active_share, week, profile)
"""

PROFILES = """
    select
        profile,
        hour,
        weight / sum(weight) over (partition by profile) as hour_share,
    from (
        select unnest(['daytime', 'office', 'twice', 'flat']) as profile
    )
    cross join (select unnest(range(24)) as hour)
    cross join lateral (
        select case profile
            when 'daytime' then 1 + 0.75 * cos((hour - 15) / 24.0 * 2 * pi())
            when 'office' then case
                when hour between 9 and 17 then 1 when hour in (8, 18, 19) then 0.25 else 0.01
            end
            when 'twice' then if(hour in (2, 14), 1, 0)
            else 1
        end as weight
    )
"""

# Numbers that look random: of a seed and of what they are about. `dice` is from 0 up to 1, `bell` a
# standard normal of two of them. Hashed twice: the hash of several values takes the last one by
# XOR, and two seeds whose own hashes begin alike would make the same world but for a hundredth.
MACROS = """
    create or replace macro dice(a, b, c, what) as
        (hash(hash(a, b, c, what, getvariable('seed'))) >> 11)::double / 9007199254740992;
    create or replace macro bell(a, b, c, what) as
        sqrt(-2 * ln(1 - dice(a, b, c, what))) * cos(2 * pi() * dice(a, b, c, what || '/angle'));
    create or replace macro drawn(mean, a, b, c, what) as
        case
            when mean > 20 then greatest(round(mean + sqrt(mean) * bell(a, b, c, what)), 0)
            else floor(mean + dice(a, b, c, what))
        end::bigint
"""

# One row a key: who it is, how it behaves, and what goes wrong with it.
KEYS = f"""
    create or replace temp table world_keys as
    with families as (
        select *, row_number() over () - 1 as number
        {FAMILIES}
    ),

    kinds as (
        select
            unnest(getvariable('kinds')) as kind,
            unnest(range(len(getvariable('kinds')))) as kind_at,
    ),

    keys as (
        select
            kind,
            kind_at * getvariable('keys_of_each') + place as key_number,
            'key_' || kind || '_' || lpad(place::varchar, 3, '0') as api_key_id,
            'ws_' || (hash(kind, place) % 12)::varchar as workspace_id,
        from kinds
        cross join (select unnest(range(getvariable('keys_of_each'))) as place)
    ),

    placed as (
        select
            keys.*,
            families.* exclude (number),
            40 * exp(1.1 * bell(key_number, 0, 0, 'size')) + 20 as credits_a_day,
            0.02 * exp(1.2 * bell(key_number, 0, 0, 'price')) as usual_price,
            0.05 + 0.30 * dice(key_number, 0, 0, 'price spread') as price_spread,
            -- the day of the onset, counted from the first evaluated one
            case
                when kind = 'creep' then floor(6 * dice(key_number, 0, 0, 'onset'))
                else 3 + floor(
                    (getvariable('evaluated_days') - 12) * dice(key_number, 0, 0, 'onset')
                )
            end::integer as onset_after,
            case
                when kind in ('creep', 'model_switch', 'longer_prompts', 'dormant_wake') then 0
                when kind = 'runaway' then floor(20 * dice(key_number, 0, 0, 'hour'))
                else floor(24 * dice(key_number, 0, 0, 'hour'))
            end::integer as onset_hour,
            case kind
                when 'leak' then exp(ln(5) + ln(20) * dice(key_number, 0, 0, 'strength'))
                when 'new_key_leak' then exp(ln(10) + ln(10) * dice(key_number, 0, 0, 'strength'))
                when 'runaway' then exp(ln(20) + ln(10) * dice(key_number, 0, 0, 'strength'))
                when 'creep' then 1.04 + 0.04 * dice(key_number, 0, 0, 'strength')
                when 'growth' then 1.005 + 0.01 * dice(key_number, 0, 0, 'strength')
                when 'month_end' then 3 + 3 * dice(key_number, 0, 0, 'strength')
                else 5
            end as strength,
            case kind
                when 'leak' then 72 + floor(168 * dice(key_number, 0, 0, 'length'))
                when 'new_key_leak' then 72 + floor(168 * dice(key_number, 0, 0, 'length'))
                when 'runaway' then 2 + floor(11 * dice(key_number, 0, 0, 'length'))
                when 'creep' then 28 * 24
                else 24 * 400
            end::integer as hour_count,
            35 + floor(36 * dice(key_number, 0, 0, 'sleep'))::integer as silent_day_count,
            kind = 'leak' and dice(key_number, 0, 0, 'dearer') < 0.33 as is_on_dearer_model,
            1 + floor(3 * dice(key_number, 0, 0, 'models'))::integer as model_count,
            floor(6 * dice(key_number, 0, 0, 'first model'))::integer as first_model,
            46 + floor((getvariable('days') - 46) * dice(key_number, 0, 0, 'age'))::integer as age,
        from keys
        join families on families.number = key_number % 5
    )

    select
        * exclude (age, onset_after),
        -- people change what runs on the days on which they work with it
        getvariable('first_evaluated') + onset_after as drawn_date,
        drawn_date + if(
            family in ('office', 'dev') and isodow(drawn_date) > 5, 8 - isodow(drawn_date), 0
        )::integer as onset_date,
        (onset_date::timestamp + interval 1 hour * onset_hour) as onset_at,
        case kind
            when 'new_key_leak' then
                onset_date - 3 - floor(8 * dice(key_number, 0, 0, 'born'))::integer
            when 'new_key_ok' then onset_date
            when 'dormant_wake' then getvariable('first_day')
            else greatest(getvariable('first_day'), getvariable('last_day') - age)
        end as first_date,
    from placed
"""

# The models a key calls, with their part in its requests before and after, and what a request
# takes. "-pro" is the one that nobody called before.
KEY_MODELS = """
    create or replace temp table world_models as
    with wheel as (
        select
            ['gpt-4o', 'gpt-4o-mini', 'claude-sonnet-4-5', 'claude-haiku-4-5', 'gemini-2.5-pro',
             'gemini-2.5-flash'] as names
    )

    select
        key_number,
        names[1 + (first_model + place) % 6] as model,
        usual_price * [1, 0.4, 1.8][place + 1] as price,
        [0.7, 0.2, 0.1][place + 1] / list_sum([0.7, 0.2, 0.1][1:model_count]) as usual_share,
    from world_keys
    cross join wheel
    cross join (select unnest(range(3)) as place)
    where place < model_count
"""

HOURS = f"""
    create or replace temp table world_hours as
    with profiles as ({PROFILES}),

    days as (
        select unnest(generate_series(
            getvariable('first_day')::timestamp, getvariable('last_day')::timestamp, interval 1 day
        ))::date as usage_date
    ),

    prices as (
        select key_number, sum(price * usual_share) as mean_price
        from world_models
        group by 1
    ),

    key_days as (
        select
            world_keys.*,
            usage_date,
            mean_price,
            -- requests of a usual day, and what makes this one differ
            credits_a_day / mean_price * week[isodow(usage_date)]
                * exp(day_spread * bell(key_number, usage_date, 0, 'day'))
                * if(
                    usage_date = onset_date
                    or dice(key_number, usage_date, 0, 'active') < active_share, 1, 0
                )
                * case kind
                    when 'growth' then
                        pow(strength, greatest(usage_date - (getvariable('last_day') - 90), 0))
                    when 'creep' then pow(strength, least(greatest(usage_date - onset_date, 0), 28))
                    when 'month_end' then if(last_day(usage_date) - usage_date < 2, strength, 1)
                    when 'step_30pct' then if(usage_date >= onset_date, 1.3, 1)
                    when 'new_key_ok' then least(1, 0.2 + 0.1 * (usage_date - onset_date))
                    when 'dormant_wake' then
                        if(
                            usage_date between onset_date - silent_day_count and onset_date - 1,
                            0, 1
                        )
                    else 1
                end as requests,
            -- what a request takes: noise of the day, and a new mean about once in 120 days
            exp(price_spread * bell(key_number, usage_date, 0, 'day price'))
                * exp(0.4 * bell(
                    key_number,
                    floor((usage_date - date '2020-01-01') / 120.0
                        + dice(key_number, 0, 0, 'shift'))::integer,
                    0,
                    'month price'
                ))
                * if(kind = 'longer_prompts' and usage_date >= onset_date, strength, 1)
                as price_factor,
        from world_keys
        join prices using (key_number)
        cross join days
        where usage_date >= first_date
    ),

    key_hours as (
        select
            key_days.*,
            usage_date::timestamp + interval 1 hour * hour as hour_at,
            requests * hour_share as usual_requests,
            requests / 24 as mean_requests,
            hour_at >= onset_at and hour_at < onset_at + interval 1 hour * hour_count
                as is_going_wrong,
        from key_days
        join profiles using (profile)
    ),

    wanted as (
        select
            key_number,
            hour_at,
            model,
            price * price_factor as price,
            usual_requests * usual_share * case
                when kind in ('model_switch', 'afternoon_switch') and is_going_wrong then 0
                when kind = 'mix_shift' and usage_date >= onset_date and model_count > 1
                    then 0.5 / usual_share / model_count + 0.5
                else 1
            end + case
                when kind in ('leak', 'new_key_leak', 'runaway') and is_going_wrong
                    and not is_on_dearer_model
                then (strength - 1) * usual_share * planted_requests
                else 0
            end as mean,
        from key_hours
        join world_models using (key_number)
        cross join lateral (
            -- a thief and a loop do not keep office hours
            select greatest(mean_requests, credits_a_day / mean_price / 24) as planted_requests
        )
        union all
        select
            key_number,
            hour_at,
            'gpt-5-pro',
            mean_price * if(is_on_dearer_model, 2, strength) * price_factor,
            if(is_on_dearer_model,
                (strength - 1) * credits_a_day / mean_price / 24,
                usual_requests
            ),
        from key_hours
        where is_going_wrong
            and (kind in ('model_switch', 'afternoon_switch') or is_on_dearer_model)
    ),

    drawn as (
        select *, drawn(mean, key_number, hour_at, model, 'requests') as request_count
        from wanted
    )

    select
        hour_at as quarter_at,
        hour_at::date as usage_date,
        workspace_id,
        api_key_id,
        null::varchar as member_id,
        model as requested_model,
        model,
        request_count,
        round(
            request_count * price
            * exp(0.3 / sqrt(request_count) * bell(key_number, hour_at, model, 'price')),
            9
        )::decimal(38, 9) as credits,
    from drawn
    join world_keys using (key_number)
    where request_count > 0
"""

TRUTH = """
    create or replace temp table world_truth as
    with onsets as (  -- the first hour in which anything is used in the new way
        select api_key_id, min(quarter_at) as onset_at
        from world_hours
        join world_keys using (api_key_id)
        where quarter_at >= world_keys.onset_at
        group by 1
    )

    select
        api_key_id,
        workspace_id,
        kind,
        family,
        onsets.onset_at,
        onsets.onset_at::date as onset_date,
        first_date,
        getvariable('causes')[kind] as cause,
        onsets.onset_at::date + getvariable('hit_days')[kind] - 1 as hit_until,
    from world_keys
    join onsets using (api_key_id)
"""


def make(
    connection: duckdb.DuckDBPyConnection,
    seed: int,
    last_day: date,
    *,
    keys_of_each: int = 20,
    kinds: tuple[str, ...] = (*CAUSES, *BENIGN),
    evaluated_days: int = EVALUATED_DAYS,
) -> None:
    """Makes the temporary tables `world_hours` (the columns of `marts.usage_quarter_hourly` that
    the detector reads, sorted by day) and `world_truth` (a row a key), `keys_of_each` kind.

    A kind of `CAUSES` has its onset (UTC) within the last `evaluated_days`; a benign one has none
    to be found. A key spends 20 credits a day or more, so that no incident is too small to matter.
    """
    first_day = last_day - timedelta(days=DAYS - 1)
    hit_days = {kind: HIT_DAYS.get(kind, OTHER_HIT_DAYS) for kind in CAUSES}
    values: dict[str, object] = {
        "seed": seed,
        "kinds": list(kinds),
        "keys_of_each": keys_of_each,
        "days": DAYS,
        "evaluated_days": evaluated_days,
        "first_day": first_day,
        "last_day": last_day,
        "first_evaluated": last_day - timedelta(days=evaluated_days - 1),
    }
    for name, value in values.items():
        connection.execute(f"set variable {name} = $value", {"value": value})
    for name, mapping in (("causes", CAUSES), ("hit_days", hit_days)):
        pairs = ", ".join(f"'{key}': {value!r}" for key, value in mapping.items())
        connection.execute(f"set variable {name} = map {{{pairs}}}")
    for statement in (*filter(str.strip, MACROS.split(";")), KEYS, KEY_MODELS, HOURS, TRUTH):
        connection.execute(statement)
