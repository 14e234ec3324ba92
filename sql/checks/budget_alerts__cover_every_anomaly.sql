-- Every day out of range is told by exactly one alert: its own, or a narrower one that explains it;
-- but for what somebody called expected.
--
-- Out of range by its credits, as spend_ranges says, or by what a request costs, by hours or by two
-- weeks, as spend_anomalies says of days whose credits are within their range.
with out_of_range as (
    select usage_date, workspace_id, scope, subject_id
    from marts.spend_ranges
    where verdict in ('high', 'drift', 'woke', 'expected')
        and usage_date <= $today
    union all
    select usage_date, workspace_id, scope, subject_id
    from marts.spend_anomalies
    where reason in ('dearer_requests', 'another_model', 'burst', 'surge', 'climb')
        and usage_date <= $today
),

fates as (
    select
        out_of_range.*,
        told_as,
        first_date,
        coalesce(told_by_scope, out_of_range.scope) as told_by_scope,
        coalesce(told_by_subject_id, out_of_range.subject_id) as told_by_subject_id,
    from out_of_range
    left join marts.alert_days as fate
        on fate.usage_date = out_of_range.usage_date
        and fate.workspace_id is not distinct from out_of_range.workspace_id
        and fate.scope = out_of_range.scope
        and fate.subject_id = out_of_range.subject_id
),

told as (
    select
        fates.usage_date,
        fates.workspace_id,
        fates.scope,
        fates.subject_id,
        told_as,
        count(alert.alert_id) as told_count,
    from fates
    left join marts.budget_alerts as alert
        on alert.workspace_id is not distinct from fates.workspace_id
        and alert.scope = told_by_scope
        and alert.subject_id = told_by_subject_id
        and alert.usage_date = first_date
        and fates.usage_date <= alert.last_date
        and alert.kind not in ('budget', 'exhaustion')
    group by 1, 2, 3, 4, 5
)

select
    usage_date,
    'marts.budget_alerts' as table_name,
    'every day out of range is told by one alert' as claim,
    '1' as expected,
    cast(told_count as varchar) as found,
    workspace_id,
    scope,
    subject_id,
from told
where told_count != 1
    and told_as is distinct from 'expected'
