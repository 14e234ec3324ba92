-- What a workspace had at the start of a UTC day, what came and went, and what it had at the end.
--
-- grain: balance_date, workspace_id?
with movements as (
    select
        posted_date as balance_date,
        workspace_id,
        coalesce(sum(credits) filter (where kind in ('grant', 'topup')), 0)::decimal(38, 9)
            as granted_credits,
        -coalesce(sum(credits) filter (where kind = 'usage'), 0)::decimal(38, 9) as used_credits,
        coalesce(sum(credits) filter (where kind not in ('grant', 'topup', 'usage')), 0)
            ::decimal(38, 9) as other_credits,
    from marts.credit_ledger
    group by 1, 2
),

running as (
    select
        *,
        sum(granted_credits - used_credits + other_credits) over (
            partition by workspace_id
            order by balance_date
        ) as closing_credits,
    from movements
)

select
    balance_date,  -- a UTC day on which credits came or went
    workspace_id,  -- null: unassigned
    (closing_credits - granted_credits + used_credits - other_credits)::decimal(38, 9)
        as opening_credits,  -- what the day before closed with
    granted_credits,  -- packs of paid invoices
    used_credits,  -- by requests of the day
    other_credits,  -- every other kind of movement, signed
    closing_credits::decimal(38, 9) as closing_credits,  -- negative: used more than was granted
from running
