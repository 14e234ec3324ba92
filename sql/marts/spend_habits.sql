-- What is known, before a day is judged, of how each key, model, member and workspace spends.
--
-- The learning half of the detector; spend_ranges is the judging half, docs/detection.md the page
-- about both. No rule and no setting is in here, so that a change of sensitivity re-judges and
-- re-learns nothing. One row for each subject with spend on the day; for tomorrow, for each with
-- spend in the year before, whatever of tomorrow has landed already: its row is what the day will
-- be held against.
--
-- Only complete days are learned from, and never the day that is judged: a limit that has seen the
-- leak it should catch is no limit. Amounts are doubles here, because logarithms are; no sum is
-- taken of them (medians, maxima and counts do not depend on the order of rows).
--
-- What each day was beside what was known of it then stands in its own row (burst, surprise), so
-- that the year's biggest is read from this table's own past and never worked out again. What is
-- older than eight weeks is read in runs of sixteen days: the first day there is after a run has
-- one more row for each subject that spent in it, with the run's biggest, its scope ending in _run.
--
-- grain: usage_date, workspace_id?, scope, subject_id
-- looks back: marts.spend_habits 365 days, marts.daily_spend 84 days, marts.first_spends all days
-- also for: tomorrow
with newest as (
    select
        max(cast(usage_date as date)) filter (run_end_date is null) as last_date,
        max(cast(run_end_date as date)) as last_run_end,
    from marts.spend_habits
    where usage_date between $day - 365 and $day - 1
),

finished_days as (
    -- of the run that has ended since, where no row says so yet
    select run_end(last_date) - cast(days_before as integer) as usage_date
    from newest
    cross join range(16) as days (days_before)
    where run_end(last_date) < $day
        and run_end(last_date) > coalesce(last_run_end, date '0001-01-01')
),

finished_runs as materialized (
    select
        workspace_id,
        scope || '_run' as scope,
        subject_id,
        cast(any_value(run_end(usage_date)) as date) as run_end_date,
        max(cast(credits as double)) as biggest_day,
        max(cast(burst as double)) as burst,
        max(cast(surprise as double)) as surprise,
        count(cast(surprise as double)) as judged_day_count,
    from marts.spend_habits
    join finished_days using (usage_date)
    where usage_date between $day - 365 and $day - 1
        and run_end_date is null
        and credits is not null
        and in_slice(subject_id, $slice, $slice_count)
    group by 1, 2, 3
),

of_the_year as (
    -- the newest days, and those before the oldest whole run
    select
        workspace_id,
        scope,
        subject_id,
        usage_date,
        cast(credits as double) as credits,
        cast(burst as double) as burst,
        cast(surprise as double) as surprise,
        if(surprise is null, 0, 1) as judged_day_count,
    from marts.spend_habits
    where usage_date between
        greatest(newest_run_end($day, $history_until), run_end($day - 366)) + 1 and $day - 1
        and run_end_date is null
        and in_slice(subject_id, $slice, $slice_count)
    union all
    select
        workspace_id,
        scope,
        subject_id,
        usage_date,
        cast(credits as double),
        cast(burst as double),
        cast(surprise as double),
        if(surprise is null, 0, 1),
    from marts.spend_habits
    where usage_date between $day - 365 and run_end($day - 366)
        and run_end_date is null
        and in_slice(subject_id, $slice, $slice_count)
    union all
    -- and the runs between them
    select
        workspace_id,
        replace(scope, '_run', ''),
        subject_id,
        run_end_date,
        biggest_day,
        burst,
        surprise,
        judged_day_count,
    from (
        select
            workspace_id,
            scope,
            subject_id,
            cast(run_end_date as date) as run_end_date,
            cast(biggest_day as double) as biggest_day,
            cast(burst as double) as burst,
            cast(surprise as double) as surprise,
            cast(judged_day_count as bigint) as judged_day_count,
        from marts.spend_habits
        where usage_date between $day - 365 and $day - 1
            and run_end_date is not null
            and in_slice(subject_id, $slice, $slice_count)
        union all by name
        from finished_runs
    ) as runs
    where run_end_date between
        run_end($day - 366) + 16 and newest_run_end($day, $history_until)
),

past_year as materialized (
    select
        workspace_id,
        scope,
        subject_id,
        max(credits) filter (usage_date <= $history_until) as biggest_day_of_year,
        max(credits) filter (usage_date <= $history_until and usage_date < $day - 1)
            as biggest_day_of_year_but_yesterday,
        max(burst) filter (usage_date <= $history_until and usage_date >= $day - 56)
            as biggest_burst,
        -- The last week says nothing of the year: what is going on must not excuse itself.
        max(burst) filter (usage_date <= $history_until and usage_date < $day - 7)
            as biggest_burst_of_year,
        max(surprise) filter (usage_date <= $history_until and usage_date < $day - 7)
            as biggest_surprise,
        cast(
            sum(judged_day_count) filter (usage_date <= $history_until and usage_date < $day - 7)
            as bigint
        ) as judged_day_count,
    from of_the_year
    group by 1, 2, 3
),

spent_in_year as (
    select workspace_id, scope, subject_id
    from past_year
    union all
    select workspace_id, scope, subject_id
    from marts.daily_spend
    where usage_date = $day
        and in_slice(subject_id, $slice, $slice_count)
),

judged as (
    select workspace_id, scope, subject_id, request_count, credits
    from marts.daily_spend
    where usage_date = $day
        and not $is_tomorrow
        and in_slice(subject_id, $slice, $slice_count)
    union all
    -- read from the first days, whose number is known: the engine plans what follows by it
    select distinct ever.workspace_id, ever.scope, ever.subject_id, null, null
    from marts.first_spends as ever
    semi join spent_in_year
        on ever.workspace_id is not distinct from spent_in_year.workspace_id
        and ever.scope = spent_in_year.scope
        and ever.subject_id = spent_in_year.subject_id
    where $is_tomorrow
        and in_slice(ever.subject_id, $slice, $slice_count)
),

subjects as materialized (
    -- numbered, to be joined by one number instead of three names, one of which may be null
    select *, cast(row_number() over () as uinteger) as subject
    from judged
),

births as (
    select subject, min(usage_date) as first_date
    from marts.first_spends as first_spend
    join subjects
        on first_spend.workspace_id is not distinct from subjects.workspace_id
        and first_spend.scope = subjects.scope
        and first_spend.subject_id = subjects.subject_id
    where usage_date <= $day
    group by 1
),

spend as materialized (
    select
        subject,
        cast($day - usage_date as utinyint) as days_ago,
        spend.request_count,
        cast(spend.credits as double) as credits,
        ln(cast(spend.credits as double)) as log_credits,
    from marts.daily_spend as spend
    join subjects
        on spend.workspace_id is not distinct from subjects.workspace_id
        and spend.scope = subjects.scope
        and spend.subject_id = subjects.subject_id
    where usage_date between $day - 84 and $day
    order by subject  -- what follows groups by it: a tenth of the time where its days lie together
),

past as (
    select *
    from spend
    where days_ago >= $day - $history_until
),

totals as materialized (
    select
        subject,

        -- The last eight weeks
        count(*) filter (days_ago <= 56) as active_day_count,
        count(*) filter (days_ago between 4 and 28) as wakeful_day_count,
        median(log_credits) filter (days_ago <= 56) as middle_log_credits,
        max(credits) filter (days_ago <= 56) as biggest_day,
        max(credits) filter (days_ago between 2 and 56) as biggest_day_but_yesterday,
        max(credits) filter (days_ago = 1) as yesterday_credits,
        median(request_count) filter (days_ago <= 56) as usual_request_count,
        median(credits / nullif(request_count, 0)) filter (days_ago <= 56)
            as usual_credits_per_request,

        -- What was usual before the slow growth that is looked for
        quantile_cont(credits, 0.9) filter (days_ago between 22 and 84) as high_day_credits,
        case  -- least() passes nulls over
            when count(*) filter (days_ago between 22 and 84) > 0
            then least(1.4826 * mad(log_credits) filter (days_ago between 22 and 84), 1.5)
        end as earlier_spread,
    from past
    group by 1
),

-- The last eight weeks: level, weekdays, spread --------------------------------------------------

recent as (
    select *
    from past
    where days_ago <= 56
),

weekdays as (
    -- what a weekday adds to the level, in logarithms, shrunk towards nothing while few were seen;
    -- a weekday is what is left of its days ago by seven: 0 is this one
    select
        subject,
        days_ago % 7 as weekday,
        case
            when count(*) >= 2
            then (median(log_credits) - any_value(middle_log_credits)) * count(*) / (count(*) + 1.0)
            else 0
        end as weekday_factor,
    from recent
    join totals using (subject)
    group by 1, 2
),

without_weekdays as (
    select recent.subject, days_ago, log_credits - weekday_factor as log_credits
    from recent
    join weekdays
        on weekdays.subject = recent.subject
        and weekday = days_ago % 7
),

shape as (
    select
        subject,
        median(log_credits) as long_level,
        median(log_credits) filter (days_ago <= 10) as short_level,
        count(*) filter (days_ago <= 10) as short_day_count,
        1.4826 * mad(log_credits) filter (days_ago > 28) as older_spread,
        1.4826 * mad(log_credits) filter (days_ago <= 28) as newer_spread,
        count(*) filter (days_ago > 28) as older_day_count,
        count(*) filter (days_ago <= 28) as newer_day_count,
    from without_weekdays
    group by 1
),

levels as (
    select
        subject,
        -- the higher of two levels: one follows growth, the other outlasts a holiday
        case when short_day_count >= 4 then greatest(long_level, short_level) else long_level end
            as level,
        -- each half has its own middle, so that growth is not taken for noise
        (
            coalesce(older_spread * older_spread, 0) * older_day_count
            + coalesce(newer_spread * newer_spread, 0) * newer_day_count
        ) / greatest(older_day_count + newer_day_count, 1) as variance,
    from shape
),

-- Slow growth: whole weeks, counted back from this day -------------------------------------------

weeks as (
    -- The fourth largest of seven days is a week's median, a day without spend being a zero. From a
    -- list: max(credits, 4) takes five times the memory of all this model.
    select
        subject,
        days_ago // 7 as weeks_ago,
        count(*) as active_day_count,
        coalesce(list_reverse_sort(list(credits))[4], 0) as middle_credits,
    from spend
    where days_ago <= 76
        and (days_ago >= $day - $history_until or (days_ago = 0 and not $is_tomorrow))
    group by 1, 2
),

week_totals as (
    select
        subject,
        max(middle_credits) filter (weeks_ago = 0 and active_day_count >= 4) as this_week_credits,
        max(middle_credits) filter (weeks_ago = 1 and active_day_count >= 4) as last_week_credits,
        max(middle_credits) filter (
            -- only weeks that the subject has lived through from their first day
            weeks_ago between 2 and 10 and $day - first_date >= 7 * weeks_ago + 6
        ) as best_week_credits,
    from weeks
    join births using (subject)
    group by 1
),

known as (
    select
        subjects.*,
        first_date,
        coalesce(active_day_count, 0) as active_day_count,
        coalesce(wakeful_day_count, 0) as wakeful_day_count,
        level,
        coalesce(weekdays.weekday_factor, 0) as weekday_factor,
        coalesce(yesterdays.weekday_factor, 0) as yesterday_weekday_factor,
        -- a spread of 0.45 on seven days is presumed of everybody, and outweighed by what is seen
        greatest(
            0.10,
            sqrt(
                (coalesce(active_day_count, 0) * coalesce(variance, 0) + 7 * 0.45 * 0.45)
                / (coalesce(active_day_count, 0) + 7)
            )
        ) * sqrt(1 + 1.0 / greatest(coalesce(active_day_count, 0), 1)) as spread,
        biggest_day,
        biggest_day_but_yesterday,
        coalesce(yesterday_credits, 0) as yesterday_credits,
        greatest(biggest_day, biggest_day_of_year) as biggest_day_of_year,
        greatest(biggest_day_but_yesterday, biggest_day_of_year_but_yesterday)
            as biggest_day_of_year_but_yesterday,
        biggest_burst,
        biggest_burst_of_year,
        biggest_surprise,
        coalesce(judged_day_count, 0) as judged_day_count,
        this_week_credits,
        last_week_credits,
        best_week_credits,
        high_day_credits,
        coalesce(earlier_spread, 0) as earlier_spread,
        usual_request_count,
        usual_credits_per_request,
    from subjects
    join births using (subject)
    left join totals using (subject)
    left join levels using (subject)
    left join past_year
        on past_year.workspace_id is not distinct from subjects.workspace_id
        and past_year.scope = subjects.scope
        and past_year.subject_id = subjects.subject_id
    left join week_totals using (subject)
    left join weekdays
        on weekdays.subject = subjects.subject
        and weekdays.weekday = 0
    left join weekdays as yesterdays
        on yesterdays.subject = subjects.subject
        and yesterdays.weekday = 1
),

-- The high day: how big a day may be and still be one of many ------------------------------------

reaches as (
    -- A burst counts as what it would be today: a key that grows has bursts that grow with it.
    select
        *,
        exp(level + weekday_factor) as usual_day,
        exp(level + yesterday_weekday_factor) as usual_yesterday,
        greatest(biggest_day, exp(level) * biggest_burst) as biggest,
        greatest(biggest_day_of_year, exp(level) * biggest_burst_of_year) as biggest_of_year,
    from known
),

blended as (
    -- A blend in logarithms of the usual day, the biggest of eight weeks and the biggest of a year,
    -- widened by the spread: usual days alone call every burst of a bursty key an anomaly, biggest
    -- days alone never learn that a key has calmed down. For the second of two days a burst counts
    -- as it was: what lasts is no burst.
    select
        *,
        exp(0.4 * ln(usual_day) + 0.3 * ln(biggest) + 0.3 * ln(biggest_of_year) + 0.6 * spread)
            as high_day,
        exp(
            0.4 * ln(usual_day)
            + 0.3 * ln(biggest_day_but_yesterday)
            + 0.3 * ln(biggest_day_of_year_but_yesterday)
            + 0.6 * spread
        ) as high_day_but_yesterday,
        exp(
            0.4 * ln(usual_yesterday)
            + 0.3 * ln(biggest_day_but_yesterday)
            + 0.3 * ln(biggest_day_of_year_but_yesterday)
            + 0.6 * spread
        ) as high_yesterday,
    from reaches
),

remembered as (
    -- Two weeks of days are needed to say what is usual.
    select
        *,
        case when active_day_count >= 14 then cast(credits as double) / usual_day end as burst,
        case when active_day_count >= 14 then cast(credits as double) / high_day end as surprise,
    from blended
    union all by name
    from finished_runs
)

select
    $day as usage_date,
    workspace_id,                   -- null: the source names none
    scope,                          -- key, model, member or workspace; of a run: key_run, …
    subject_id,                     -- the id (or model) within its scope
    request_count,                  -- on the day itself; null for tomorrow
    credits,                        -- on the day itself; null for tomorrow
    first_date,                     -- the first day it ever spent
    active_day_count,               -- days with spend in the 56 before
    wakeful_day_count,              -- of these, 4 to 28 days before
    level,                          -- ln of credits on a day, weekday taken out
    weekday_factor,                 -- to add to the level on this weekday
    yesterday_weekday_factor,       -- and on yesterday's
    spread,                         -- of ln of credits, from day to day
    biggest_day,                    -- credits, in the 56 days before
    biggest_day_but_yesterday,      -- the same, yesterday left out
    biggest_day_of_year,            -- credits, in the 365 days before
    yesterday_credits,              -- 0 without spend
    biggest_burst,                  -- in the 56 days before; null before any day had one
    biggest_burst_of_year,          -- in the 365 days before, the last week left out
    biggest_surprise,               -- in the 365 days before, the last week left out
    judged_day_count,               -- days of those 365 that had a surprise
    high_day,                       -- credits: the blend of usual and biggest days
    high_day_but_yesterday,         -- the same as it was known without yesterday
    high_yesterday,                 -- the same for yesterday's weekday
    this_week_credits,              -- median day of the week that ends with this day
    last_week_credits,              -- of the week before
    best_week_credits,              -- the highest of the nine weeks before those
    high_day_credits,               -- nine in ten days were below, 22 to 84 days ago
    earlier_spread,                 -- of ln of credits, 22 to 84 days ago
    usual_request_count,            -- median of the active days
    usual_credits_per_request,      -- median of the active days
    burst,                          -- this day's credits / its usual day; null while young
    surprise,                       -- this day's credits / high_day; null while young
    run_end_date,                   -- of a run: its last day; of a day: null
from remembered
