-- How fast a key or a member spends, in a day's fastest hours and over two weeks, beside what it
-- did before: the second channel, as spend_mixes is of what a request costs.
--
-- A loop of two hours is nothing beside the biggest days of a bursty key, and everything beside its
-- biggest hours; a growth of 4 % a day is nothing beside last week, and everything beside last
-- month. Three rules; no setting is in here, and spend_ranges' verdict is its own: spend_anomalies
-- puts the two together.
--
-- 1. Burst: an hour with more than 3 times the credits of the biggest hour of eight weeks. An hour
--    only grows: what is over this limit while it runs is over it when the day has ended.
-- 2. Surge: six hours in a row of one day with more than twice the credits of the biggest six of
--    eight weeks. Six hours vary less than one, so less is out of the usual: a leak too weak for a
--    burst is seen in them. They only grow, too.
-- 3. Climb: a usual day of the last two weeks has more than 2.4 times the requests of the busiest
--    two weeks that ended four weeks ago or earlier (more for those whose days differ more), the
--    last week's middle day has so too, and the two weeks before had not yet: it is still going
--    up. Requests, for prices add noise of their own. A usual day is the geometric mean of the days
--    with spend, which neither one burst nor days off move far.
--
-- Keys and members only: in a workspace or a model each key that comes or goes is a burst.
--
-- grain: usage_date, workspace_id?, scope, subject_id
-- looks back: marts.spend_peaks 56 days, marts.daily_spend 83 days
with subjects as materialized (
    select *, row_number() over () as subject
    from marts.spend_peaks
    where usage_date = $day
),

-- The fastest hours -----------------------------------------------------------------------------

peaks as (
    select
        subject,
        count(*) as active_day_count,
        max(peak.peak_credits) as biggest_hour_credits,
        max(peak.peak_request_count) as biggest_hour_request_count,
        max(peak.six_hours_credits) as biggest_six_hours_credits,
    from marts.spend_peaks as peak
    join subjects
        on peak.workspace_id is not distinct from subjects.workspace_id
        and peak.scope = subjects.scope
        and peak.subject_id = subjects.subject_id
    where peak.usage_date between $day - 56 and $history_until
    group by 1
),

-- Two weeks, counted back from this day ---------------------------------------------------------

spend as (
    select
        subject,
        cast($day - spend.usage_date as integer) as days_ago,
        request_count,
        -- exact, so that sums do not depend on the order of rows
        cast(ln(nullif(request_count, 0)) as decimal(18, 9)) as log_requests,
        cast(ln(cast(credits as double)) as decimal(18, 9)) as log_credits,
    from marts.daily_spend as spend
    join subjects
        on spend.workspace_id is not distinct from subjects.workspace_id
        and spend.scope = subjects.scope
        and spend.subject_id = subjects.subject_id
    where spend.usage_date between $day - 83 and $day
),

fortnights as (
    select
        subject,
        days_ago // 14 as fortnights_ago,
        count(log_requests) as active_day_count,
        max(days_ago) as first_day_ago,
        exp(cast(sum(log_requests) as double) / count(log_requests)) as requests,
        exp(cast(sum(log_credits) as double) / count(log_requests)) as credits,
        median(request_count) filter (days_ago < 7) as last_week_requests,
        1.4826 * mad(cast(log_requests as double)) as spread,
    from spend
    where log_requests is not null
    group by 1, 2
),

lived as (
    -- half of the days, and only two weeks that lie wholly within what it has lived through
    select *
    from fortnights
    qualify active_day_count >= 7
        and max(first_day_ago) over (partition by subject) >= 14 * fortnights_ago + 13
),

climbs as (
    select
        subject,
        max(requests) filter (fortnights_ago = 0) as usual_request_count,
        max(credits) filter (fortnights_ago = 0) as usual_credits,
        max(last_week_requests) as last_week_request_count,
        max(requests) filter (fortnights_ago = 1) as earlier_request_count,
        max(requests) filter (fortnights_ago >= 2) as best_request_count,
        max(credits) filter (fortnights_ago >= 2) as best_credits,
        -- two weeks have their own middle, so that growth is not taken for noise
        cast(sum(cast(spread as decimal(18, 9))) as double) / count(*) as spread,
    from lived
    group by 1
)

select
    usage_date,
    workspace_id,                -- null: the source names none
    scope,                       -- key or member
    subject_id,                  -- the id within its scope
    peak_hour_at,                -- the hour with most credits so far, UTC
    peak_credits,                -- spent in it
    peak_request_count,          -- made in it
    coalesce(active_day_count, 0) as active_day_count,  -- days with spend in the 56 before
    biggest_hour_credits,        -- of those days; null without any
    biggest_hour_request_count,  -- in such a biggest hour of a day; null without any
    case when active_day_count >= 14 then cast(3 * biggest_hour_credits as decimal(38, 9)) end
        as hour_limit,           -- the most that an hour may take; null: too young
    six_hours_at,                -- the first of the six hours in a row with most credits so far
    six_hours_credits,           -- spent in them
    biggest_six_hours_credits,   -- in six such hours of those 56 days; null without any
    case when active_day_count >= 14 then cast(2 * biggest_six_hours_credits as decimal(38, 9)) end
        as six_hours_limit,      -- the most that six hours may take; null: too young
    usual_request_count,         -- on a usual day of the last two weeks; null: few, or not known
    usual_credits,               -- on such a day
    best_request_count,          -- the same in the busiest two weeks that ended four weeks ago
    best_credits,                -- the same in the dearest of them
    coalesce(
        usual_request_count > best_request_count * 2.4 * exp(0.8 * (spread - 0.3))
        and usual_request_count > 1.2 * earlier_request_count
        and earlier_request_count > 1.2 * best_request_count
        and last_week_request_count > 2.4 * best_request_count,
        false
    ) as is_climbing,            -- by its requests; what they cost is held against the settings
from subjects
left join peaks using (subject)
left join climbs using (subject)
