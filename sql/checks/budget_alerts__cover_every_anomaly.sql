-- Every day out of range is told by exactly one alert: its own, or a narrower one that explains it.
--
-- Out of range by its credits, as spend_ranges says, or by what a request costs, as spend_anomalies
-- says of days whose credits are within their range.
with out_of_range as (
    select usage_date, workspace_id, scope, subject_id
    from marts.spend_ranges
    where verdict in ('high', 'drift', 'woke')
        and usage_date <= $today
    union all
    select usage_date, workspace_id, scope, subject_id
    from marts.spend_anomalies
    where reason in ('dearer_requests', 'another_model')
        and usage_date <= $today
),

explained as (
    -- an explanation may itself be explained: a workspace by its model, the model by its key
    select
        out_of_range.*,
        explained_by_scope is not null as is_explained,
    from out_of_range
    left join marts.spend_anomalies as anomaly
        on anomaly.usage_date = out_of_range.usage_date
        and anomaly.workspace_id is not distinct from out_of_range.workspace_id
        and anomaly.scope = out_of_range.scope
        and anomaly.subject_id = out_of_range.subject_id
),

told as (
    select
        explained.usage_date,
        explained.workspace_id,
        explained.scope,
        explained.subject_id,
        is_explained,
        count(*) filter (
            alert.scope = explained.scope
            and alert.subject_id = explained.subject_id
        ) as own_count,
        count(alert.alert_id) as any_count,
    from explained
    left join marts.budget_alerts as alert
        on alert.workspace_id is not distinct from explained.workspace_id
        and explained.usage_date between alert.usage_date and alert.last_date
        and alert.kind != 'budget'
    group by 1, 2, 3, 4, 5
)

select
    usage_date,
    'marts.budget_alerts' as table_name,
    'every day out of range is told by one alert' as claim,
    '1' as expected,
    cast(if(is_explained, any_count, own_count) as varchar) as found,
    workspace_id,
    scope,
    subject_id,
from told
where (not is_explained and own_count != 1)
    or (is_explained and any_count = 0)
