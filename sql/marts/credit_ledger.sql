-- A movement of credits: a pack granted with a paid invoice, or a day's usage.
--
-- A gateway invoice in `paid` says its pack was delivered: one grant of exactly its credits, in
-- one lot, dated when it was issued (facts/reconciliation.md, section 8). Lots are not drawn yet: a
-- usage movement names none.
--
-- looks back: marts.usage_by_key all days
-- grain: movement_id
select
    'grant_' || invoice_id as movement_id,  -- the same for ever
    workspace_id,  -- null: unassigned
    invoice_id as lot_id,  -- the pack it belongs to
    case kind when 'topup' then 'topup' else 'grant' end as kind,  -- grant | topup | usage, so far
    credits::decimal(38, 9) as credits,  -- signed: what came in is positive
    issued_at::date as posted_date,  -- UTC
    null::date as corrects_date,  -- for usage of a closed month
    invoice_id,  -- the gateway invoice that bought it
    'Pack of invoice ' || invoice_id as reason,  -- for a person
from marts.invoices
where status = 'paid' and credits > 0
union all
select
    'usage_' || usage_date || '_' || coalesce(workspace_id, '') as movement_id,
    workspace_id,
    null as lot_id,
    'usage' as kind,
    -sum(credits) as credits,
    usage_date as posted_date,
    null as corrects_date,
    null as invoice_id,
    'Usage of ' || usage_date as reason,
from marts.usage_by_key
group by usage_date, workspace_id
