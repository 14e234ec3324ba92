-- Credits and requests are conserved: every stage of a day agrees with what was landed.
with landed as (
    select usage_date, request_count, credits
    from marts.conservation
    where stage = 'raw'
)

select
    usage_date,
    case stage
        when 'staging' then 'staging.requests'
        when 'ledger' then 'marts.credit_ledger'
        when 'export' then 'exports/usage_by_key'
        else 'marts.usage_' || stage
    end as table_name,
    'the credits and requests of a day are those that were landed' as claim,
    landed.credits || ' credits'
    || coalesce(
        ' in '
        || case when stages.request_count is not null then landed.request_count end
        || ' requests',
        ''
    ) as expected,
    stages.credits || ' credits'
    || coalesce(' in ' || stages.request_count || ' requests', '') as found,
from marts.conservation as stages
inner join landed using (usage_date)
where not agrees
order by
    usage_date,
    -- the stage where it broke before those that follow it
    list_position(['staging', 'by_model', 'by_key', 'by_member', 'ledger', 'export'], stage)
