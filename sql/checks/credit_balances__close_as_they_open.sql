-- A day's opening balance is what the day before closed with.
with neighbours as (
    select
        *,
        lag(closing_credits, 1, 0)
            over (partition by workspace_id order by balance_date) as closed_before,
    from marts.credit_balances
)

select
    balance_date as usage_date,
    'marts.credit_balances' as table_name,
    'opening balance of ' || coalesce(workspace_id, 'unassigned')
    || ' is the closing balance before it' as claim,
    closed_before::varchar as expected,
    opening_credits::varchar as found,
from neighbours
where opening_credits <> closed_before
