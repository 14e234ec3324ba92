-- The gateway's own totals of a day and model are what we counted of it, in the source's workspace
-- where it names one.
--
-- A warning: requests that no listing gave yet make them differ too. Only days that were asked for,
-- and as far back as the gateway keeps requests.
--
-- severity: warning
-- looks back: raw.usage_api_totals 31 days, staging.requests 31 days
with answers as (
    select
        source_name,
        gateway,
        usage_date,
        model,
        request_count,
        credits,
    from raw.usage_api_totals
    -- a day is answered whole: what its newest answer leaves out is nothing
    qualify arrived_at = max(arrived_at) over (partition by source_name, usage_date)
),

asked as (
    select distinct
        answers.source_name,
        answers.gateway,
        answers.usage_date,
        sources.workspace_id,
    from answers
    left join raw.sources as sources using (source_name)
),

counted as (
    select
        asked.source_name,
        asked.usage_date,
        requests.model,
        count(*) as request_count,
        sum(requests.credits) as credits,
    from staging.requests as requests
    inner join asked using (gateway, usage_date)
    where asked.workspace_id is null or requests.workspace_id = asked.workspace_id
    group by 1, 2, 3
),

both_sides as (
    select
        coalesce(answers.usage_date, counted.usage_date) as usage_date,
        coalesce(answers.source_name, counted.source_name) as source_name,
        coalesce(answers.model, counted.model) as model,
        coalesce(answers.credits, 0) as stated_credits,
        coalesce(counted.credits, 0) as credits,
        -- null where the answer counts none
        case when answers.source_name is null then 0 else answers.request_count end
            as stated_count,
        coalesce(counted.request_count, 0) as request_count,
    from answers
    full join counted
        on answers.source_name = counted.source_name
        and answers.usage_date = counted.usage_date
        and answers.model is not distinct from counted.model
)

select
    usage_date,
    'raw.usage_api_totals' as table_name,
    'source ' || source_name || ' says of ' || coalesce(model, 'no model') || ' what landed'
        as claim,
    stated_credits || ' credits' || coalesce(' in ' || stated_count || ' requests', '') as expected,
    credits || ' credits in ' || request_count || ' requests' as found,
from both_sides
where stated_credits <> credits or stated_count <> request_count
order by usage_date, source_name, model
